//! `--secrets-report`: which secret was masked where. Values are nowhere in it.

use navvy_job::event::Masked;

use super::sanitize::clean;
use super::style::Palette;
use super::text;

const HEAD: [&str; 5] = ["secret", "form", "job", "where", "times"];

/// A table, or one line where nothing was masked.
pub fn lines(masked: &[Masked], palette: Palette) -> Vec<String> {
    if masked.is_empty() {
        return vec!["No secret was masked".to_owned()];
    }
    let rows: Vec<[String; 5]> = std::iter::once(HEAD.map(str::to_owned)).chain(masked.iter().map(row)).collect();
    let widths: [usize; 5] =
        std::array::from_fn(|at| rows.iter().map(|row| text::width(&row[at])).max().unwrap_or_default());
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| text::pad(cell, width));
        format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end().to_owned()
    };
    std::iter::once(palette.strong("Secrets masked:")).chain(rows.iter().map(line)).collect()
}

fn row(masked: &Masked) -> [String; 5] {
    let job = masked.job.as_deref().map_or_else(|| "–".to_owned(), clean);
    [clean(&masked.secret), masked.form.words().to_owned(), job, clean(&masked.place), masked.count.to_string()]
}

#[cfg(test)]
mod tests {
    use navvy_job::event::Form;

    use super::*;

    #[test]
    fn a_line_a_secret_form_and_place() {
        assert_eq!(lines(&[], Palette { on: false }), ["No secret was masked"]);
        let line = |secret: &str, job: Option<&str>, count| Masked {
            secret: secret.to_owned(),
            form: Form::Base64,
            job: job.map(str::to_owned),
            place: "output of step 2".to_owned(),
            count,
        };
        let text =
            lines(&[line("API_TOKEN", Some("unit"), 12), line("KEY", None, 1)], Palette { on: false }).join("\n");
        insta::assert_snapshot!(text, @r"
        Secrets masked:
          secret     form    job   where             times
          API_TOKEN  base64  unit  output of step 2  12
          KEY        base64  –     output of step 2  1
        ");
    }
}
