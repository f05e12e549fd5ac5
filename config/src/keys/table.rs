//! What a table of keys is made of.

/// A map of the language.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Its name in the schema.
    pub id: &'static str,
    /// What the map is.
    pub about: &'static str,
    pub keys: &'static [Key],
    /// Does it say by one key what it is?
    pub single: Option<Further>,
    /// What other keys may hold; `None`: they mean nothing.
    pub rest: Option<&'static Shape>,
    /// One of these must be there.
    pub some_of: &'static [&'static str],
}

/// What further keys are beside the one that says what a map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Further {
    Refused,
    /// And warned of.
    Ignored,
}

#[derive(Debug)]
pub(crate) struct Key {
    pub name: &'static str,
    pub shape: Shape,
    pub about: &'static str,
    pub required: bool,
}

/// What may stand as a value. The value of a key may also be left empty.
#[derive(Debug)]
pub(crate) enum Shape {
    Any,
    Null,
    /// A text with a `<< tag >>` that stands for something else than a text.
    Template,
    /// A single value of any type.
    Text,
    /// One of these words.
    Words(&'static [&'static str]),
    Truth,
    Integer {
        least: i64,
        most: Option<i64>,
    },
    /// A text, or a list of texts.
    Texts,
    Map(&'static Keys),
    /// A list of at least so many.
    List(&'static Shape, usize),
    /// A map whose keys are names.
    Named(&'static Shape),
    Either(&'static [Shape]),
    /// Defined once, used in many places.
    Shared(&'static Shared),
}

/// A shape with a name of its own in the schema, which may contain itself.
#[derive(Debug)]
pub(crate) struct Shared {
    pub id: &'static str,
    pub about: &'static str,
    pub shape: Shape,
}

impl Keys {
    pub const fn new(id: &'static str, about: &'static str, keys: &'static [Key]) -> Self {
        Self { id, about, keys, single: None, rest: None, some_of: &[] }
    }

    /// A map with one key, which says what it is.
    pub const fn single(id: &'static str, about: &'static str, keys: &'static [Key]) -> Self {
        Self { single: Some(Further::Refused), ..Self::new(id, about, keys) }
    }

    /// A map whose first key says what it is; further ones are ignored.
    pub const fn first(id: &'static str, about: &'static str, keys: &'static [Key]) -> Self {
        Self { single: Some(Further::Ignored), ..Self::new(id, about, keys) }
    }

    pub const fn rest(self, rest: &'static Shape) -> Self {
        Self { rest: Some(rest), ..self }
    }

    pub const fn some_of(self, keys: &'static [&'static str]) -> Self {
        Self { some_of: keys, ..self }
    }

    /// The names, for a sentence: "`only` and `ignore`".
    pub fn listed(&self) -> String {
        let names: Vec<String> = self.names().map(|name| format!("`{name}`")).collect();
        match &names[..] {
            [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
            names => names.concat(),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }
}

pub(crate) const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, about, required: false }
}

impl Key {
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }
}
