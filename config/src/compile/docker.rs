//! The `docker` stanza: containers and the credentials of their registries.

use std::collections::BTreeMap;

use navvy_job::compiled::{Container, RegistryAuth, Variables};

use super::fields::{At, Fields};
use super::{caps, environment};
use crate::diagnostic::Diagnostic;
use crate::keys::{Keys, tables};
use crate::syntax::Node;

/// The containers of a non-empty list; `None` when something is wrong, which has been reported.
pub(super) fn containers(place: At<'_>, node: &Node) -> Option<Vec<Container>> {
    let items = match node.as_list() {
        Some(items) if !items.is_empty() => items,
        _ => {
            place.wrong_shape(node, "docker", "a list with at least one image");
            return None;
        }
    };
    caps::check_services(place, items);
    let containers: Vec<_> = items.iter().map(|item| container(place, item)).collect();
    containers.into_iter().collect()
}

fn container(place: At<'_>, item: &Node) -> Option<Container> {
    let Some(map) = item.as_map() else {
        place.wrong_shape(item, "docker", "a list of maps with `image`");
        return None;
    };
    let fields = Fields { place, map, span: item.span, owner: "a docker entry" };
    fields.only(&tables::CONTAINER);
    Some(Container {
        image: image(&fields)?,
        name: fields.text("name"),
        entrypoint: arguments(&fields, "entrypoint"),
        command: arguments(&fields, "command"),
        user: fields.text("user"),
        environment: fields.get("environment").map(|node| container_environment(place, node)).unwrap_or_default(),
        auth: auth(&fields),
        in_place_of: None,
    })
}

fn container_environment(place: At<'_>, node: &Node) -> Variables {
    let variables = environment::container_variables(place, node);
    caps::check_environment(place, &variables, node.span);
    variables
}

fn image(fields: &Fields<'_>) -> Option<String> {
    let image = fields.required_text("image")?;
    let digest = image.split_once('@').map(|(_, digest)| digest);
    if digest.is_some_and(|digest| !is_digest(digest)) {
        let span = fields.get("image").map_or(fields.span, |node| node.span);
        let message = format!("`{image}` is not an image: a digest is `sha256:` and 64 hexadecimal digits");
        fields.place.error("invalid-image", span, message);
    }
    Some(image)
}

fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A list is taken as it is; a text is split as a shell would split it.
fn arguments(fields: &Fields<'_>, key: &str) -> Option<Vec<String>> {
    let node = fields.get(key)?;
    if node.as_list().is_some() {
        return Some(fields.place.texts(node, key));
    }
    Some(words(&fields.place.text(node, key)?))
}

/// Words between blanks; quotes and backslashes hold them together.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(characters.next()),
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn auth(fields: &Fields<'_>) -> Option<RegistryAuth> {
    password(fields).or_else(|| aws(fields)).or_else(|| {
        let settings = settings(fields, "gcp_auth", &tables::GCP_AUTH)?;
        for key in tables::GCP_AUTH.names().filter(|key| !settings.contains_key(*key)) {
            let span = fields.map.entry("gcp_auth").map_or(fields.span, |entry| entry.key_span);
            fields.place.error("missing-key", span, format!("`gcp_auth` has no `{key}`"));
        }
        Some(RegistryAuth::Gcp { settings })
    })
}

fn password(fields: &Fields<'_>) -> Option<RegistryAuth> {
    let node = fields.get("auth")?;
    let Some(map) = node.as_map() else {
        fields.place.wrong_shape(node, "auth", "a map with `username` and `password`");
        return None;
    };
    let auth = Fields { place: fields.place, map, span: node.span, owner: "`auth`" };
    auth.only(&tables::AUTH);
    let (username, password) = (auth.required_text("username"), auth.required_text("password"));
    Some(RegistryAuth::Password { username: username?, password: password? })
}

fn aws(fields: &Fields<'_>) -> Option<RegistryAuth> {
    let settings = settings(fields, "aws_auth", &tables::AWS_AUTH)?;
    let has = |key| settings.contains_key(key);
    let by_key = has("aws_access_key_id") || has("aws_secret_access_key");
    let complete = has("aws_access_key_id") && has("aws_secret_access_key");
    if by_key == has("oidc_role_arn") || by_key != complete {
        let span = fields.get("aws_auth").map_or(fields.span, |node| node.span);
        let message = "`aws_auth` takes either both keys or `oidc_role_arn`";
        let help = "the keys are `aws_access_key_id` and `aws_secret_access_key`";
        fields.place.report(Diagnostic::error("exclusive-keys", span, message).help(help));
        return None;
    }
    Some(RegistryAuth::Aws { settings })
}

fn settings(fields: &Fields<'_>, key: &str, known: &Keys) -> Option<BTreeMap<String, String>> {
    let node = fields.get(key)?;
    let Some(map) = node.as_map() else {
        fields.place.wrong_shape(node, key, "a map");
        return None;
    };
    let owner = format!("`{key}`");
    let inner = Fields { place: fields.place, map, span: node.span, owner: &owner };
    inner.only(known);
    Some(known.names().filter_map(|key| Some((key.to_owned(), inner.text(key)?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_as_text_is_split_as_a_shell_would() {
        assert_eq!(words("mysqld --a=1  \"b c\" 'd \\e' f\\ g \"\""), ["mysqld", "--a=1", "b c", "d \\e", "f g", ""]);
    }

    #[test]
    fn digests_are_checked() {
        assert!(is_digest(&format!("sha256:{}", "a1".repeat(32))));
        assert!(!is_digest("sha256:abc"));
        assert!(!is_digest("latest"));
    }
}
