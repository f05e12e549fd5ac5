//! Tokens of an expression to its tree.

use std::vec::IntoIter;

use super::lexer::{Operator, Token, tokens};
use crate::resolve::value::Value;

/// The language's limit on the depth of conditions.
const DEEPEST: usize = 100;

#[derive(Debug, Clone)]
pub(crate) enum Expression {
    Literal(Value),
    Name(String),
    Regex(String),
    Not(Box<Self>),
    /// Any number of operands, so that a long chain is not a deep tree.
    And(Vec<Self>),
    Or(Vec<Self>),
    Compare(Operator, Box<(Self, Self)>),
}

/// The tree, or what is wrong with the text.
pub(crate) fn parse(text: &str) -> Result<Expression, String> {
    let mut parser = Parser { tokens: tokens(text)?.into_iter().peekable(), depth: 0 };
    let expression = parser.or()?;
    match parser.tokens.next() {
        None => Ok(expression),
        Some(token) => Err(format!("unexpected {} after the end of the expression", describe(&token))),
    }
}

struct Parser<'t> {
    tokens: std::iter::Peekable<IntoIter<Token<'t>>>,
    depth: usize,
}

type Parsed = Result<Expression, String>;

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
        while self.tokens.next_if(|token| token == joint).is_some() {
            operands.push(operand(self)?);
        }
        Ok(if operands.len() == 1 { operands.remove(0) } else { join(operands) })
    }

    fn comparison(&mut self) -> Parsed {
        let left = self.unary()?;
        let Some(Token::Operator(operator)) = self.tokens.next_if(|token| matches!(token, Token::Operator(_))) else {
            return Ok(left);
        };
        let right = self.unary()?;
        Ok(Expression::Compare(operator, Box::new((left, right))))
    }

    fn unary(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("more than {DEEPEST} levels inside each other"));
        }
        let parsed = self.operand();
        self.depth -= 1;
        parsed
    }

    fn operand(&mut self) -> Parsed {
        match self.tokens.next() {
            Some(Token::Not) => Ok(Expression::Not(Box::new(self.unary()?))),
            Some(Token::Open) => self.group(),
            Some(Token::Name(name)) => Ok(named(name)),
            Some(Token::Text(text)) => Ok(Expression::Literal(Value::Text(text.into()))),
            Some(Token::Int(value)) => Ok(Expression::Literal(Value::Int(value))),
            Some(Token::Float(value)) => Ok(Expression::Literal(Value::Float(value))),
            Some(Token::Regex(pattern)) => Ok(Expression::Regex(pattern.replace("\\/", "/"))),
            Some(token) => Err(format!("a value is missing before {}", describe(&token))),
            None => Err("a value is missing at the end".to_owned()),
        }
    }

    fn group(&mut self) -> Parsed {
        let inner = self.or()?;
        match self.tokens.next() {
            Some(Token::Close) => Ok(inner),
            _ => Err("a `)` is missing".to_owned()),
        }
    }
}

fn named(name: &str) -> Expression {
    match name {
        "true" | "True" | "TRUE" => Expression::Literal(Value::Bool(true)),
        "false" | "False" | "FALSE" => Expression::Literal(Value::Bool(false)),
        "null" => Expression::Literal(Value::Null),
        _ => Expression::Name(name.to_owned()),
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
        let wrong = |text| parse(text).unwrap_err();
        assert_eq!(wrong("a =="), "a value is missing at the end");
        assert_eq!(wrong("(a or b"), "a `)` is missing");
        assert_eq!(wrong("a b"), "unexpected `b` after the end of the expression");
        assert_eq!(wrong("a == \"b"), "a string is not closed");
        assert_eq!(wrong("a == $b"), "unexpected `$`");
        assert_eq!(wrong(&"(".repeat(500)), "more than 100 levels inside each other");
    }
}
