//! Tokens: random, kept as hashes, each for one thing, and dead with it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::{Result, State, int, now_ms, uint};

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything that a person may do.
    Admin,
    /// Looking.
    Viewer,
    /// Taking tasks of one resource class, for a runner. `*`: of any.
    Class(String),
    /// Taking one task, once.
    Launch(String),
    /// Speaking for one task that was taken, by whoever took it as the `fence`-th.
    Task {
        /// The task's id.
        task: String,
        /// How often the task had been handed out by then.
        fence: u64,
    },
}

impl Scope {
    fn columns(&self) -> (&'static str, &str, u64) {
        match self {
            Self::Admin => ("admin", "", 0),
            Self::Viewer => ("viewer", "", 0),
            Self::Class(class) => ("class", class, 0),
            Self::Launch(task) => ("launch", task, 0),
            Self::Task { task, fence } => ("task", task, *fence),
        }
    }

    fn read(kind: &str, subject: String, fence: u64) -> Option<Self> {
        match kind {
            "admin" => Some(Self::Admin),
            "viewer" => Some(Self::Viewer),
            "class" => Some(Self::Class(subject)),
            "launch" => Some(Self::Launch(subject)),
            "task" => Some(Self::Task { task: subject, fence }),
            _ => None,
        }
    }
}

/// What became of a token that may be used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// This was its use.
    First,
    /// It had been used before, or is not good any more.
    Refused,
}

/// A new token's text: 256 random bits behind a word that secret scanners find.
pub fn random_text() -> String {
    let mut bytes = [0_u8; 32];
    bytes[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    bytes[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    // A version and a variant stand in each of them: hashed, the bits are spread.
    spelled(Sha256::digest(bytes).into())
}

/// A token's text of bits that nobody can guess.
pub fn spelled(bits: [u8; 32]) -> String {
    format!("navvy_{}", URL_SAFE_NO_PAD.encode(bits))
}

/// What is stored of a token. No salt: the text is random.
pub fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()))
}

impl State {
    /// Makes a token, whose text is returned and kept nowhere.
    pub async fn new_token(&self, scope: &Scope, name: &str) -> Result<String> {
        let text = random_text();
        self.add_token(scope, name, &text).await?;
        Ok(text)
    }

    /// Takes a token whose text the caller has made.
    pub async fn add_token(&self, scope: &Scope, name: &str, text: &str) -> Result<()> {
        let (kind, subject, fence) = scope.columns();
        let insert =
            "INSERT INTO tokens (hash, name, kind, subject, fence, created_ms) VALUES ($1, $2, $3, $4, $5, $6)";
        let query = sqlx::query(insert).bind(hash(text)).bind(name).bind(kind).bind(subject).bind(int(fence));
        query.bind(now_ms()).execute(self.pool()).await?;
        Ok(())
    }

    /// What a token is good for; `None`: it is unknown, was used up, or was revoked.
    pub async fn token(&self, text: &str) -> Result<Option<Scope>> {
        Ok(self.named_token(text).await?.map(|(scope, _)| scope))
    }

    /// The same, with the token's name.
    pub async fn named_token(&self, text: &str) -> Result<Option<(Scope, String)>> {
        let select = "SELECT kind, subject, fence, name FROM tokens
                      WHERE hash = $1 AND revoked_ms IS NULL AND used_ms IS NULL";
        let row = sqlx::query(select).bind(hash(text)).fetch_optional(self.pool()).await?;
        let Some(row) = row else { return Ok(None) };
        let scope = Scope::read(&row.try_get::<String, _>(0)?, row.try_get(1)?, uint(row.try_get(2)?));
        let name = row.try_get(3)?;
        Ok(scope.map(|scope| (scope, name)))
    }

    /// Uses a token that is good for one use.
    pub async fn use_token(&self, text: &str) -> Result<Use> {
        let update = "UPDATE tokens SET used_ms = $1 WHERE hash = $2 AND used_ms IS NULL AND revoked_ms IS NULL";
        let done = sqlx::query(update).bind(now_ms()).bind(hash(text)).execute(self.pool()).await?;
        Ok(if done.rows_affected() == 1 { Use::First } else { Use::Refused })
    }

    /// Ends all tokens of this scope. How many there were.
    pub async fn revoke(&self, scope: &Scope) -> Result<u64> {
        let (kind, subject, _) = scope.columns();
        let update = "UPDATE tokens SET revoked_ms = $1 WHERE kind = $2 AND subject = $3 AND revoked_ms IS NULL";
        let done = sqlx::query(update).bind(now_ms()).bind(kind).bind(subject).execute(self.pool()).await?;
        Ok(done.rows_affected())
    }

    /// Is there any token of this scope?
    pub async fn has_token(&self, scope: &Scope) -> Result<bool> {
        let (kind, subject, _) = scope.columns();
        let select = "SELECT COUNT(*) FROM tokens WHERE kind = $1 AND subject = $2 AND revoked_ms IS NULL";
        let row = sqlx::query(select).bind(kind).bind(subject).fetch_one(self.pool()).await?;
        Ok(row.try_get::<i64, _>(0)? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{databases, sqlite};
    use super::*;

    #[tokio::test]
    async fn a_token_is_good_for_its_scope_until_it_is_revoked() {
        for state in databases().await {
            let scope = Scope::Class("acme/linux".into());
            let text = state.new_token(&scope, "a runner").await.unwrap();
            assert!(text.starts_with("navvy_") && text.len() > 40, "{text}");
            assert_eq!(state.token(&text).await.unwrap(), Some(scope.clone()));
            assert_eq!(state.token("navvy_guessed").await.unwrap(), None);
            assert_eq!(state.revoke(&scope).await.unwrap(), 1);
            assert_eq!(state.token(&text).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_launch_token_is_used_once() {
        for state in databases().await {
            let text = state.new_token(&Scope::Launch("0123456789abcdef".into()), "launch").await.unwrap();
            assert_eq!(state.use_token(&text).await.unwrap(), Use::First);
            assert_eq!(state.use_token(&text).await.unwrap(), Use::Refused);
            assert_eq!(state.token(&text).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn a_dump_of_the_database_holds_no_token() {
        let (directory, state) = sqlite().await;
        let text = state.new_token(&Scope::Admin, "first").await.unwrap();
        drop(state);
        for file in std::fs::read_dir(directory.path().join("state")).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()));
        }
    }
}
