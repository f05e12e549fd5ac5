//! Where links lead, by the archive's own entries: nothing is asked of the environment. Pure.

use std::collections::HashMap;

/// As the kernel.
const MOST: usize = 40;

/// Links of an archive, by their paths in it.
#[derive(Debug, Default)]
pub struct Links {
    symbolic: HashMap<Vec<u8>, Vec<u8>>,
    /// The other name's path, and that of the file.
    hard: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Links {
    pub fn symbolic(&mut self, path: Vec<u8>, target: Vec<u8>) {
        self.symbolic.insert(path, target);
    }

    pub fn hard(&mut self, path: Vec<u8>, target: Vec<u8>) {
        self.hard.push((path, target));
    }

    pub fn is_empty(&self) -> bool {
        self.symbolic.is_empty() && self.hard.is_empty()
    }

    /// If there is nothing else, where the link at this path leads.
    pub fn of(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.symbolic.contains_key(path).then(|| self.resolve(path)).flatten()
    }

    /// Each link's path and where it leads, sorted. `None`: in a circle.
    pub fn all(&self) -> Vec<(&[u8], Option<Vec<u8>>)> {
        let hard = self.hard.iter().map(|(path, target)| (&path[..], Some(target.clone())));
        let symbolic = self.symbolic.keys().map(|path| (&path[..], self.resolve(path)));
        let mut all: Vec<_> = hard.chain(symbolic).collect();
        all.sort();
        all
    }

    /// Paths of an archive are absolute ones without their first slash, so a target is understood as in its environment.
    fn resolve(&self, path: &[u8]) -> Option<Vec<u8>> {
        let (mut resolved, mut followed) = (Vec::new(), 0);
        let mut names = reversed(path);
        while let Some(name) = names.pop() {
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    up(&mut resolved);
                    continue;
                }
                name => {
                    if !resolved.is_empty() {
                        resolved.push(b'/');
                    }
                    resolved.extend_from_slice(name);
                }
            }
            let Some(target) = self.symbolic.get(&resolved) else { continue };
            followed += 1;
            if followed > MOST {
                return None;
            }
            if target.starts_with(b"/") {
                resolved.clear()
            } else {
                up(&mut resolved)
            }
            names.append(&mut reversed(target));
        }
        Some(resolved)
    }
}

fn reversed(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect()
}

fn up(path: &mut Vec<u8>) {
    path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_where_the_kernel_would_go() {
        let mut links = Links::default();
        let all: [(&str, &str, Option<&str>); 9] = [
            ("w/out/a", "b", Some("w/out/b")),
            ("w/out/d/up", "../b/./c", Some("w/out/b/c")),
            ("w/out/absolute", "/w/out/b", Some("w/out/b")),
            ("w/out/dir", "d", Some("w/out/d")),
            ("w/out/through", "dir/up", Some("w/out/b/c")),
            ("w/out/out", "../../../../etc/passwd", Some("etc/passwd")),
            ("w/out/self", "self", None),
            ("w/out/x", "y/z", None),
            ("w/out/y", "x", None),
        ];
        for (path, target, _) in all {
            links.symbolic(path.into(), target.into());
        }
        for (path, _, wanted) in all {
            let resolved = links.resolve(path.as_bytes());
            assert_eq!(resolved.as_deref(), wanted.map(str::as_bytes), "{path}");
        }
        links.hard(b"w/out/0".to_vec(), b"w/out/b".to_vec());
        assert_eq!(links.all()[0], (&b"w/out/0"[..], Some(b"w/out/b".to_vec())));
        assert_eq!(links.of(b"w/out/nothing"), None);
    }
}
