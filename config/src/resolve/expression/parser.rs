//! Tokens of an expression to its tree.

use std::ops::Range;
use std::vec::IntoIter;

use super::lexer::{Operator, Placed, Token, tokens};
use super::wrong::{self, Wrong};
use crate::resolve::value::Value;

/// The language's limit on the depth of conditions.
const DEEPEST: usize = 100;

#[derive(Debug, Clone)]
pub(crate) enum Expression {
    Literal(Value),
    /// And where in the text it stands.
    Name(String, Range<usize>),
    Regex(String),
    Not(Box<Self>),
    /// Any number of operands, so that a long chain is not a deep tree.
    And(Vec<Self>),
    Or(Vec<Self>),
    Compare(Operator, Box<(Self, Self)>),
}

/// The tree, or what is wrong with the text.
pub(crate) fn parse(text: &str) -> Result<Expression, Wrong> {
    let tokens = tokens(text)?.into_iter().peekable();
    let mut parser = Parser { text, tokens, depth: 0, last: None };
    let expression = parser.or()?;
    match parser.next() {
        None => Ok(expression),
        Some(further) => Err(parser.further(further)),
    }
}

struct Parser<'t> {
    text: &'t str,
    tokens: std::iter::Peekable<IntoIter<Placed<'t>>>,
    depth: usize,
    /// The last name that was read.
    last: Option<(&'t str, Range<usize>)>,
}

type Parsed = Result<Expression, Wrong>;

impl<'t> Parser<'t> {
    fn or(&mut self) -> Parsed {
        self.chain(&Token::Or, Self::and, Expression::Or)
    }

    fn and(&mut self) -> Parsed {
        self.chain(&Token::And, Self::comparison, Expression::And)
    }

    fn chain(
        &mut self,
        joint: &Token<'_>,
        operand: fn(&mut Self) -> Parsed,
        join: fn(Vec<Expression>) -> Expression,
    ) -> Parsed {
        let first = operand(self)?;
        let mut operands = vec![first];
        while self.tokens.next_if(|(token, _)| token == joint).is_some() {
            operands.push(operand(self)?);
        }
        Ok(if operands.len() == 1 { operands.remove(0) } else { join(operands) })
    }

    fn comparison(&mut self) -> Parsed {
        let left = self.unary()?;
        let next = self.tokens.next_if(|(token, _)| matches!(token, Token::Operator(_)));
        let Some((Token::Operator(operator), _)) = next else { return Ok(left) };
        let right = self.unary()?;
        Ok(Expression::Compare(operator, Box::new((left, right))))
    }

    fn unary(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEEPEST {
            let at = self.tokens.peek().map(|(_, at)| at.clone()).unwrap_or_else(|| self.end());
            return Err(Wrong::new(format!("more than {DEEPEST} levels inside each other"), at));
        }
        let parsed = self.operand();
        self.depth -= 1;
        parsed
    }

    fn operand(&mut self) -> Parsed {
        let Some((token, at)) = self.next() else {
            return Err(Wrong::new("a value is missing at the end", self.end()));
        };
        match token {
            Token::Not => Ok(Expression::Not(Box::new(self.unary()?))),
            Token::Open => self.group(),
            Token::Name(name) => {
                self.last = Some((name, at.clone()));
                Ok(named(name, at))
            }
            Token::Text(text) => Ok(Expression::Literal(Value::Text(text.into()))),
            Token::Int(value) => Ok(Expression::Literal(Value::Int(value))),
            Token::Float(value) => Ok(Expression::Literal(Value::Float(value))),
            Token::Regex(pattern) => Ok(Expression::Regex(pattern.replace("\\/", "/"))),
            token => Err(Wrong::new(format!("a value is missing before {}", describe(&token)), at)),
        }
    }

    fn group(&mut self) -> Parsed {
        let inner = self.or()?;
        match self.next() {
            Some((Token::Close, _)) => Ok(inner),
            Some(further) => Err(match self.further(further) {
                wrong if wrong.help.is_some() => wrong,
                wrong => Wrong::new("a `)` is missing", wrong.at),
            }),
            None => Err(Wrong::new("a `)` is missing", self.end())),
        }
    }

    fn next(&mut self) -> Option<Placed<'t>> {
        self.tokens.next()
    }

    fn end(&self) -> Range<usize> {
        let end = self.text.trim_end().len();
        end..end
    }

    /// What is to be said of a token behind the end: it, or a name before it, may be an operator of another language.
    fn further(&mut self, (token, at): Placed<'t>) -> Wrong {
        let before = self.last.take().filter(|(_, name)| self.text[name.end..at.start].trim().is_empty());
        let here = if let Token::Name(name) = token { wrong::word(name, at.clone()) } else { None };
        let message = format!("unexpected {} after the end of the expression", describe(&token));
        here.or_else(|| before.and_then(|(name, at)| wrong::word(name, at))).unwrap_or_else(|| Wrong::new(message, at))
    }
}

fn named(name: &str, at: Range<usize>) -> Expression {
    match name {
        "true" | "True" | "TRUE" => Expression::Literal(Value::Bool(true)),
        "false" | "False" | "FALSE" => Expression::Literal(Value::Bool(false)),
        "null" => Expression::Literal(Value::Null),
        _ => Expression::Name(name.to_owned(), at),
    }
}

fn describe(token: &Token<'_>) -> String {
    match token {
        Token::Open => "`(`".to_owned(),
        Token::Close => "`)`".to_owned(),
        Token::Operator(_) => "an operator".to_owned(),
        Token::And => "`and`".to_owned(),
        Token::Or => "`or`".to_owned(),
        Token::Not => "`not`".to_owned(),
        Token::Name(name) => format!("`{name}`"),
        Token::Text(text) => format!("`\"{text}\"`"),
        Token::Regex(pattern) => format!("`/{pattern}/`"),
        Token::Int(value) => format!("`{value}`"),
        Token::Float(value) => format!("`{value}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_expressions_say_what_is_missing() {
        let wrong = |text: &str| parse(text).unwrap_err().message;
        assert_eq!(wrong("a =="), "a value is missing at the end");
        assert_eq!(wrong("(a or b"), "a `)` is missing");
        assert_eq!(wrong("a b"), "unexpected `b` after the end of the expression");
        assert_eq!(wrong("a == \"b"), "a string is not closed");
        assert_eq!(wrong("a == $b"), "`$b` is not a value here");
        assert_eq!(wrong(&"(".repeat(500)), "more than 100 levels inside each other");
    }

    #[test]
    fn what_is_wrong_has_its_place_and_a_way_out() {
        for (text, at, help) in [
            ("a && b", "&&", "write `and`"),
            ("a || b", "||", "write `or`"),
            ("a = b", "=", "write `==`"),
            ("a === b", "===", "write `==`"),
            ("a !== b", "!==", "write `!=`"),
            ("a <> b", "<>", "write `!=`"),
            ("a and !b", "!", "write `not`"),
            ("a =~ /b/", "=~", "write `matches`"),
            ("a == $b", "$b", "environment variables"),
            ("${CIRCLE_BRANCH} == a", "${CIRCLE_BRANCH}", "write `pipeline.git.branch`"),
            ("a == “b”", "“", "straight quotes"),
            ("{{ a }} == b", "{", "without braces"),
            ("a == \u{200b}b", "\u{200b}", "remove it"),
            ("a AND b", "AND", "write `and`"),
            ("NOT a", "NOT", "write `not`"),
            ("(a Or b)", "Or", "write `or`"),
            ("a is b", "is", "write `==`"),
            ("a startsWith b", "startsWith", "write `starts-with`"),
            ("a in [b]", "[", ""),
            ("a == b/1.0", "/1.0", "in quotes"),
            ("a == 1.0.0", "1.0.0", "in quotes: `\"1.0.0\"`"),
            ("a == `b`", "`", "double quotes"),
            ("a ==", "", ""),
        ] {
            let wrong = parse(text).unwrap_err();
            assert_eq!(&text[wrong.at.clone()], at, "{text}: {wrong:?}");
            assert!(wrong.help.unwrap_or_default().contains(help), "{text}");
        }
    }
}
