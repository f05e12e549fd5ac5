//! Paths of workspaces and caches that name something else than their author thinks.

use super::fields::Fields;
use crate::diagnostic::Diagnostic;
use crate::syntax::Node;

/// Paths of a workspace are patterns of Go's `filepath.Match` below its root.
pub(super) fn check_workspace(fields: &Fields<'_>, root: &str) {
    each(fields, "paths", &mut |path, node| {
        let (message, help) = if path.starts_with(['/', '~']) {
            let inside = path.strip_prefix(root.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/'));
            let help = match inside.filter(|inside| !inside.is_empty()) {
                Some(inside) => format!("write `{inside}`"),
                None => format!("a path begins below the root, `{root}`: `{path}` is looked for in there"),
            };
            (format!("`{path}` does not begin below `root`, as paths of a workspace do"), help)
        } else if path.contains("**") {
            let help = "`*` names all of one directory, and a directory is kept with all below it".to_owned();
            (format!("`**` in `{path}` matches what `*` does: it crosses no `/`"), help)
        } else if path.contains('$') {
            (as_it_is(path), "write the path out, from `root` on".to_owned())
        } else {
            return;
        };
        fields.place.report(Diagnostic::warning("workspace-path", node.span, message).help(help));
    });
    each(fields, "root", &mut |path, node| {
        if path.contains('$') {
            fields.place.report(Diagnostic::warning("workspace-path", node.span, as_it_is(path)).help(WRITE_OUT));
        }
    });
}

const WRITE_OUT: &str = "write the path out; `~` is the home, and a relative path begins in the working directory";

fn as_it_is(path: &str) -> String {
    format!("`{path}` is taken as it is: no variable is put in for `$`")
}

/// Paths of a cache are not patterns.
pub(super) fn check_cache(fields: &Fields<'_>) {
    each(fields, "paths", &mut |path, node| {
        let (message, help) = if path.contains('*') {
            let message = format!("`{path}` is not a pattern: a cache keeps what has this very name");
            (message, "name the directory: it is kept with all below it")
        } else if path.contains('$') {
            (as_it_is(path), WRITE_OUT)
        } else {
            return;
        };
        fields.place.report(Diagnostic::warning("cache-path", node.span, message).help(help));
    });
}

/// The texts of a key, also of lists in its list.
fn each(fields: &Fields<'_>, key: &str, look: &mut dyn FnMut(&str, &Node)) {
    fn inside(node: &Node, look: &mut dyn FnMut(&str, &Node)) {
        match node.as_list() {
            Some(items) => items.iter().for_each(|item| inside(item, look)),
            None => node.as_text().into_iter().for_each(|text| look(text, node)),
        }
    }
    fields.get(key).into_iter().for_each(|node| inside(node, look));
}
