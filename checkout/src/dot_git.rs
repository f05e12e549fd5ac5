//! Names that some file system takes for `.git`, so that no file of a tree may have them.
//!
//! A tree may lie on a disk of Windows or of a Mac, where one directory has many names. git refuses these, on every system,
//! for a name of the index that leads into the git directory is a way to its credentials.

/// Characters that HFS+ does not see in a name: U+200C–200F, U+202A–202E, U+206A–206F, U+FEFF.
fn is_ignorable(bytes: [u8; 3]) -> bool {
    matches!(bytes, [0xe2, 0x80, 0x8c..=0x8f | 0xaa..=0xae] | [0xe2, 0x81, 0xaa..=0xaf] | [0xef, 0xbb, 0xbf])
}

/// Is one part of a path `.git` to any file system?
pub(super) fn is_dot_git(part: &[u8]) -> bool {
    let seen = without_ignorable(part);
    // What NTFS makes of `.git` for programs that know short names alone.
    let named = [&b".git"[..], b"git~1"].into_iter().find_map(|name| {
        let (begin, rest) = seen.split_at_checked(name.len())?;
        begin.eq_ignore_ascii_case(name).then_some(rest)
    });
    // Windows drops dots and blanks at the end; behind a colon stands a stream of the same file.
    named.is_some_and(|rest| {
        let end = rest.iter().find(|byte| !b". ".contains(byte));
        matches!(end, None | Some(b':'))
    })
}

fn without_ignorable(part: &[u8]) -> Vec<u8> {
    let mut seen = Vec::with_capacity(part.len());
    let mut rest = part;
    while let Some((byte, after)) = rest.split_first() {
        rest = match rest.first_chunk::<3>() {
            Some(bytes) if is_ignorable(*bytes) => &rest[3..],
            _ => {
                seen.push(*byte);
                after
            }
        };
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_git_directory_is_known() {
        for name in [
            ".git",
            ".GIT",
            ".Git",
            ".git.",
            ".git ",
            ".git. . ",
            ".git::$INDEX_ALLOCATION",
            ".git :x",
            "git~1",
            "GIT~1.",
            "git~1:x",
            ".g\u{200c}it",
            "\u{feff}.git",
            ".git\u{206f}",
            ".g\u{202a}i\u{200f}T. ",
        ] {
            assert!(is_dot_git(name.as_bytes()), "{name:?}");
        }
        for name in [
            "",
            ".gi",
            "git",
            ".gitignore",
            ".git-x",
            ".git.x",
            ".git x",
            "x.git",
            "git~2",
            "git~10",
            ".g\u{2010}it",
            ".gi\u{e9}t",
            "a:.git",
        ] {
            assert!(!is_dot_git(name.as_bytes()), "{name:?}");
        }
        assert!(!is_dot_git(b".git\xe2\x80") && !is_dot_git(b"\xff.git"));
    }
}
