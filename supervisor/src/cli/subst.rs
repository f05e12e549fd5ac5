//! `env subst`: variables in a text, as the library that the original uses understands them.
//!
//! | written | unset | empty | set |
//! |---|---|---|---|
//! | `$N`, `${N}` | nothing | nothing | value |
//! | `${N-d}`, `${N=d}` | d | nothing | value |
//! | `${N:-d}`, `${N:=d}` | d | d | value |
//! | `${N+d}`, `${N:+d}` | nothing | d | d |
//! | `${N?d}` | error d | nothing | value |
//! | `${N:?d}` | error d | error d | value |
//! | `${#N}` | 0 | 0 | number of characters |
//!
//! `$$` is a dollar sign that begins nothing; `$_` and `${_}` stay. A default may itself hold variables. Bytes that
//! are no UTF-8 pass unchanged.

use std::collections::HashMap;
use std::os::unix::ffi::OsStringExt as _;

pub type Environment = HashMap<Vec<u8>, Vec<u8>>;

/// Defaults within defaults; more is an attack on our stack.
const DEPTH_CAP: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub enum Error {
    Unclosed,
    TooDeep,
    Wanted { name: String, message: String },
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unclosed => write!(formatter, "closing brace expected"),
            Self::TooDeep => write!(formatter, "more than {DEPTH_CAP} defaults within each other"),
            Self::Wanted { name, message } if message.is_empty() => write!(formatter, "{name}: not set"),
            Self::Wanted { name, message } => write!(formatter, "{name}: {message}"),
        }
    }
}

pub fn environment() -> Environment {
    std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec())).collect()
}

pub fn substitute(text: &[u8], environment: &Environment) -> Result<Vec<u8>, Error> {
    let mut reader = Reader { text, place: 0, environment };
    let mut out = Vec::new();
    while reader.place < text.len() {
        reader.one(&mut out, 0)?;
    }
    Ok(out)
}

struct Reader<'a> {
    text: &'a [u8],
    place: usize,
    environment: &'a Environment,
}

impl<'a> Reader<'a> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.place + ahead).copied()
    }

    /// One byte of text, or the expression that a dollar sign begins.
    fn one(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), Error> {
        match (self.text[self.place], self.peek(1)) {
            (b'$', Some(b'$')) => {
                out.push(b'$');
                self.place += 2;
            }
            (b'$', Some(b'{')) => return self.braces(out, depth),
            (b'$', Some(next)) if is_name(next) => {
                self.place += 1;
                match self.name() {
                    b"_" => out.extend_from_slice(b"$_"),
                    name => out.extend_from_slice(self.value(name).unwrap_or_default()),
                }
            }
            (byte, _) => {
                out.push(byte);
                self.place += 1;
            }
        }
        Ok(())
    }

    fn name(&mut self) -> &'a [u8] {
        let rest = &self.text[self.place..];
        let length = rest.iter().position(|byte| !is_name(*byte)).unwrap_or(rest.len());
        self.place += length;
        &rest[..length]
    }

    fn value(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.environment.get(name).map(Vec::as_slice)
    }

    /// `${…}`; what names no variable stays as it is.
    fn braces(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), Error> {
        let start = self.place;
        self.place += 2;
        let counts = self.peek(0) == Some(b'#');
        self.place += usize::from(counts);
        let name = self.name();
        if name.is_empty() && self.peek(0).is_none_or(|byte| byte == b'\n') {
            return Err(Error::Unclosed);
        }
        if name.is_empty() || name == b"_" {
            self.place = start + 2;
            out.extend_from_slice(b"${");
            return Ok(());
        }
        let operator = self.operator();
        let default = self.default(depth)?;
        let value = self.value(name);
        if counts {
            let characters = String::from_utf8_lossy(value.unwrap_or_default()).chars().count();
            out.extend_from_slice(characters.to_string().as_bytes());
            return Ok(());
        }
        out.extend_from_slice(&choose(name, value, operator, default)?);
        Ok(())
    }

    fn operator(&mut self) -> Operator {
        let colon = self.peek(0) == Some(b':');
        let operator = match self.peek(usize::from(colon)) {
            Some(b'-' | b'=') => Operator::Default { also_empty: colon },
            Some(b'+') => Operator::Alternative,
            Some(b'?') => Operator::Wanted { also_empty: colon },
            _ => return Operator::None,
        };
        self.place += 1 + usize::from(colon);
        operator
    }

    /// Up to the closing brace, which is taken. As in the original, it is on the same line.
    fn default(&mut self, depth: usize) -> Result<Vec<u8>, Error> {
        if depth == DEPTH_CAP {
            return Err(Error::TooDeep);
        }
        let mut text = Vec::new();
        loop {
            match self.peek(0) {
                None | Some(b'\n' | b'\r') => return Err(Error::Unclosed),
                Some(b'}') => {
                    self.place += 1;
                    return Ok(text);
                }
                Some(_) => self.one(&mut text, depth + 1)?,
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Operator {
    /// None, or one that is unknown: the plain value.
    None,
    Default {
        also_empty: bool,
    },
    Alternative,
    Wanted {
        also_empty: bool,
    },
}

fn choose(name: &[u8], value: Option<&[u8]>, operator: Operator, default: Vec<u8>) -> Result<Vec<u8>, Error> {
    let lacks = |also_empty: bool| value.is_none_or(|value| also_empty && value.is_empty());
    match operator {
        Operator::Default { also_empty } if lacks(also_empty) => Ok(default),
        Operator::Alternative => Ok(if value.is_some() { default } else { Vec::new() }),
        Operator::Wanted { also_empty } if lacks(also_empty) => Err(Error::Wanted {
            name: String::from_utf8_lossy(name).into_owned(),
            message: String::from_utf8_lossy(&default).into_owned(),
        }),
        _ => Ok(value.unwrap_or_default().to_vec()),
    }
}

fn is_name(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<String, Error> {
        let environment = [("BAR", "bar"), ("FOO", "foo"), ("EMPTY", ""), ("ÄÖ", "no name"), ("WIDE", "äö")];
        let environment = environment.map(|(name, value)| (name.into(), value.into())).into();
        substitute(text.as_bytes(), &environment).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn texts() {
        let table = [
            ("", ""),
            ("$BAR", "bar"),
            ("$BAR baz", "bar baz"),
            ("$BAR$FOO", "barfoo"),
            ("$NONE|", "|"),
            ("$_ bar", "$_ bar"),
            ("${_} bar", "${_} bar"),
            ("${BAR}baz", "barbaz"),
            ("${NONE-$BAR}", "bar"),
            ("${NONE=$BAR}", "bar"),
            ("${EMPTY-$BAR}", ""),
            ("${EMPTY:-$BAR}", "bar"),
            ("${EMPTY:=$BAR}", "bar"),
            ("${EMPTY+hello}", "hello"),
            ("${EMPTY:+hello}", "hello"),
            ("${NONE+hello}", ""),
            ("${NONE:+hello}", ""),
            ("hello $BAR\nhello ${EMPTY:=$FOO}", "hello bar\nhello foo"),
            ("${NONE:=wo_rld} ${NONE:=bar_baz}", "wo_rld bar_baz"),
            ("prop=${HOME_URL-http://localhost:8080}", "prop=http://localhost:8080"),
            ("FOO $$BAR BAZ", "FOO $BAR BAZ"),
            ("FOO $${BAR} BAZ", "FOO ${BAR} BAZ"),
            ("$$$BAR", "$bar"),
            ("$$${NONE:-baz}", "$baz"),
            ("${NONE:-${ALSO:-$FOO}-x}", "foo-x"),
            ("${#BAR} ${#NONE} ${#WIDE}", "3 0 2"),
            ("${BAR?no} ${EMPTY?no}", "bar "),
            ("100 $ and $. and $", "100 $ and $. and $"),
            ("${} $", "${} $"),
            ("${BAR/a/b}", "bar"),
        ];
        for (text, wanted) in table {
            assert_eq!(run(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn errors() {
        assert_eq!(run("hello ${"), Err(Error::Unclosed));
        assert_eq!(run("${BAR"), Err(Error::Unclosed));
        assert_eq!(run("${BAR:-x\n}"), Err(Error::Unclosed));
        assert_eq!(run(&"${N:-".repeat(100)), Err(Error::TooDeep));
        assert_eq!(run("${NONE:?is needed}").unwrap_err().to_string(), "NONE: is needed");
        assert_eq!(run("${EMPTY:?}").unwrap_err().to_string(), "EMPTY: not set");
    }

    #[test]
    fn other_bytes_pass() {
        assert_eq!(substitute(b"\xff$A\xfe", &Environment::new()).unwrap(), b"\xff\xfe");
    }
}
