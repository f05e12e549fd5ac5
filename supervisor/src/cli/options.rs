//! `--name value` and `--name=value`.

pub struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    /// Takes the known names alone, each once.
    pub fn parse(words: &[&'a str], known: &[&str]) -> Result<Self, String> {
        let mut found: Vec<(&str, &str)> = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(option) = word.strip_prefix("--") else { return Err(format!("{word:?} is not an option")) };
            let (name, value) = match option.split_once('=') {
                Some(both) => both,
                None => (option, *words.next().ok_or_else(|| format!("--{option} needs a value"))?),
            };
            if !known.contains(&name) {
                return Err(format!("--{name} is unknown; known are --{}", known.join(", --")));
            }
            if found.iter().any(|(taken, _)| *taken == name) {
                return Err(format!("--{name} is given twice"));
            }
            found.push((name, value));
        }
        Ok(Self(found))
    }

    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// Neither missing nor empty.
    pub fn required(&self, name: &str) -> Result<&'a str, String> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| format!("--{name} is missing"))
    }

    /// A switch: true or false, or as the original's scripts write it, 1 or 0. An empty one is not given.
    pub fn is_on(&self, name: &str, default: bool) -> Result<bool, String> {
        match self.get(name) {
            None | Some("") => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("--{name} is {other}: it is true or false")),
        }
    }
}
