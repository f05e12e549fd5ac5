//! What a job is given beside its config, from contexts and its project; and their keeping.
//!
//! ```text
//! value ──XChaCha20-Poly1305, a key of its own──▶ sealed
//!         that key ──the processor's key─────────▶ wrapped       a new processor's key wraps again, and seals nothing again
//! ```
//!
//! Owner and name are part of what is sealed: a row that is moved to another name opens no more.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use chacha20poly1305::aead::{Aead as _, Generate as _, Key, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use navvy_job::claim::SshKey;
use sha2::Sha256;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::{ClaimError, Result};
use crate::state::now_ms;

/// What an agent is given with a task.
#[derive(Clone, Default)]
pub struct Given {
    /// Later ones win.
    pub variables: Vec<(String, String)>,
    /// For `checkout` and `add_ssh_keys`.
    pub ssh_keys: Vec<SshKey>,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("variables", &self.variables.len()).finish_non_exhaustive()
    }
}

/// Names and values of one owner's secrets.
type Opened = Vec<(String, String)>;

/// Opens and seals. Cheap to clone.
#[derive(Clone)]
pub struct SecretSource {
    keys: Arc<BTreeMap<String, XChaCha20Poly1305>>,
    /// Keys of their own, from which texts of tokens derive.
    deriving: Arc<BTreeMap<String, [u8; 32]>>,
    /// The key that new secrets are wrapped with.
    newest: Arc<str>,
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSource").field("keys", &self.keys.keys()).finish_non_exhaustive()
    }
}

const NONCE: usize = 24;
/// What a key of secrets is put to beside secrets has a key of its own.
const DERIVING: &[u8] = b"navvy: texts of tokens";

fn derive(key: &[u8; 32], of: &[u8]) -> [u8; 32] {
    // As HMAC itself does it with a short key.
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(of);
    mac.finalize().into_bytes().into()
}

impl SecretSource {
    /// Keys by name, the newest last: 32 bytes each. `None`: there is none.
    pub fn new(keys: Vec<(String, [u8; 32])>) -> Option<Self> {
        let newest = keys.last()?.0.as_str().into();
        let deriving = keys.iter().map(|(name, key)| (name.clone(), derive(key, DERIVING))).collect();
        let keys = keys.into_iter().map(|(name, key)| (name, XChaCha20Poly1305::new(&key.into()))).collect();
        Some(Self { keys: Arc::new(keys), deriving: Arc::new(deriving), newest })
    }

    /// The key that is used for what is new.
    pub(crate) fn newest(&self) -> &str {
        &self.newest
    }

    /// 256 bits that nobody knows who has not this key, the same whenever they are asked for. `None`: that key is not here.
    pub(crate) fn derived(&self, key_name: &str, of: &str) -> Option<[u8; 32]> {
        Some(derive(self.deriving.get(key_name)?, of.as_bytes()))
    }

    /// Keeps a secret, in place of the one of that name.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn set(&self, tx: &mut AnyConnection, owner: &str, name: &str, value: &str) -> Result<()> {
        let key = Key::<XChaCha20Poly1305>::generate();
        let sealed = seal(&XChaCha20Poly1305::new(&key), value.as_bytes(), &bound(owner, name))?;
        let wrapped = seal(self.key(&self.newest)?, &key, &bound(owner, name))?;
        let insert = "INSERT INTO secrets (owner, name, created_ms, key_name, wrapped, sealed)
                      VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (owner, name) DO UPDATE SET
                      created_ms = excluded.created_ms, key_name = excluded.key_name, wrapped = excluded.wrapped,
                      sealed = excluded.sealed";
        let query = sqlx::query(insert).bind(owner).bind(name).bind(now_ms()).bind(self.newest.to_string());
        query.bind(wrapped).bind(sealed).execute(tx).await?;
        Ok(())
    }

    /// Removes a secret. Was there one?
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn remove(&self, tx: &mut AnyConnection, owner: &str, name: &str) -> Result<bool> {
        let delete = "DELETE FROM secrets WHERE owner = $1 AND name = $2";
        Ok(sqlx::query(delete).bind(owner).bind(name).execute(tx).await?.rows_affected() > 0)
    }

    /// Names of an owner's secrets, with when each was set.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn names(&self, tx: &mut AnyConnection, owner: &str) -> Result<Vec<(String, i64)>> {
        let select = "SELECT name, created_ms FROM secrets WHERE owner = $1 ORDER BY name";
        let rows = sqlx::query(select).bind(owner).fetch_all(tx).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Names of the owners that begin so.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn owners(&self, tx: &mut AnyConnection, prefix: &str) -> Result<Vec<(String, i64)>> {
        let select = "SELECT owner, MIN(created_ms) FROM secrets GROUP BY owner ORDER BY owner";
        let rows = sqlx::query(select).fetch_all(tx).await?;
        let all = rows.iter().map(|row| Ok((row.try_get::<String, _>(0)?, row.try_get(1)?)));
        let all: Vec<(String, i64)> = all.collect::<Result<_, sqlx::Error>>()?;
        Ok(all.into_iter().filter_map(|(owner, at)| Some((owner.strip_prefix(prefix)?.to_owned(), at))).collect())
    }

    /// The secrets of a project's job with these contexts: the project's own first, then the contexts' in their order.
    ///
    /// # Errors
    /// The database does not answer, or a secret cannot be opened with any key that is here.
    pub async fn given(&self, tx: &mut AnyConnection, project: &str, contexts: &[String]) -> Result<Given> {
        let keys_of = keys_owner(project);
        let mut owners = vec![keys_of.clone(), project_owner(project)];
        owners.extend(contexts.iter().map(|name| context_owner(name)));
        let opened = self.open_all(tx, &owners).await?;
        // A context that is named twice counts where it stands last, too.
        let of = |owner: &String| opened.get(owner).cloned().unwrap_or_default();
        let ssh_keys = of(&keys_of).into_iter().map(ssh_key).collect::<Result<_>>()?;
        Ok(Given { ssh_keys, variables: owners.iter().skip(1).flat_map(of).collect() })
    }

    /// The secrets of these owners, by their names; a claim waits for one question only.
    async fn open_all(&self, tx: &mut AnyConnection, owners: &[String]) -> Result<HashMap<String, Opened>> {
        let places: Vec<String> = (1..=owners.len()).map(|number| format!("${number}")).collect();
        let select = "SELECT owner, name, key_name, wrapped, sealed FROM secrets WHERE owner IN";
        let select = AssertSqlSafe(format!("{select} ({}) ORDER BY name", places.join(", ")));
        let query = owners.iter().fold(sqlx::query(select), |query, owner| query.bind(owner.clone()));
        let mut opened: HashMap<String, Opened> = HashMap::new();
        for row in query.fetch_all(tx).await? {
            let (owner, name, key_name): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let (wrapped, sealed): (Vec<u8>, Vec<u8>) = (row.try_get(3)?, row.try_get(4)?);
            let value = self.open(&owner, &name, &key_name, &wrapped, &sealed)?;
            opened.entry(owner).or_default().push((name, value));
        }
        Ok(opened)
    }

    fn open(&self, owner: &str, name: &str, key_name: &str, wrapped: &[u8], sealed: &[u8]) -> Result<String> {
        let bound = bound(owner, name);
        let key: [u8; 32] = unseal(self.key(key_name)?, wrapped, &bound)?
            .try_into()
            .map_err(|_| ClaimError::Secrets(format!("the key of {owner}/{name} has a wrong length")))?;
        let value = unseal(&XChaCha20Poly1305::new(&key.into()), sealed, &bound)?;
        String::from_utf8(value).map_err(|_| ClaimError::Secrets(format!("{owner}/{name} is not text")))
    }

    /// Wraps every key that another key has wrapped with the newest one. How many.
    ///
    /// # Errors
    /// The database does not answer, or an old key is not here.
    pub async fn rewrap(&self, tx: &mut AnyConnection) -> Result<u64> {
        let select = "SELECT owner, name, key_name, wrapped FROM secrets WHERE key_name <> $1";
        let rows = sqlx::query(select).bind(self.newest.to_string()).fetch_all(&mut *tx).await?;
        for row in &rows {
            let (owner, name, key_name): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let key = unseal(self.key(&key_name)?, &row.try_get::<Vec<u8>, _>(3)?, &bound(&owner, &name))?;
            let wrapped = seal(self.key(&self.newest)?, &key, &bound(&owner, &name))?;
            let update = "UPDATE secrets SET key_name = $1, wrapped = $2 WHERE owner = $3 AND name = $4";
            let query = sqlx::query(update).bind(self.newest.to_string()).bind(wrapped).bind(owner).bind(name);
            query.execute(&mut *tx).await?;
        }
        Ok(rows.len() as u64)
    }

    fn key(&self, name: &str) -> Result<&XChaCha20Poly1305> {
        let known = || self.keys.keys().cloned().collect::<Vec<_>>().join(", ");
        self.keys.get(name).ok_or_else(|| {
            ClaimError::Secrets(format!(
                "they are sealed with the key {name:?}, which is not among those given: {}",
                known()
            ))
        })
    }
}

/// Secrets of a context belong to this owner.
pub fn context_owner(context: &str) -> String {
    format!("context:{context}")
}

/// Secrets of a project belong to this owner.
pub fn project_owner(project: &str) -> String {
    format!("project:{project}")
}

/// Private keys of a project belong to this owner, by their fingerprints.
pub fn keys_owner(project: &str) -> String {
    format!("keys:{project}")
}

/// Kept as JSON: host, text and fingerprints. The library's own words may quote the key.
fn ssh_key((name, value): (String, String)) -> Result<SshKey> {
    let json = serde_json::from_str::<serde_json::Value>(&value).unwrap_or_default();
    let field = |field: &str| json.get(field).and_then(|text| text.as_str()).map(str::to_owned);
    let damaged = || ClaimError::Secrets(format!("the key {name} is not kept in a form that this processor knows"));
    Ok(SshKey {
        host: field("host").filter(|host| !host.is_empty()),
        text: field("text").filter(|text| !text.is_empty()).ok_or_else(damaged)?,
        md5: field("md5").ok_or_else(damaged)?,
        sha256: field("sha256").unwrap_or_else(|| name.clone()),
    })
}

fn bound(owner: &str, name: &str) -> Vec<u8> {
    format!("{}:{owner}{name}", owner.len()).into_bytes()
}

fn seal(key: &XChaCha20Poly1305, plain: &[u8], bound: &[u8]) -> Result<Vec<u8>> {
    let nonce = XNonce::generate();
    let sealed = key.encrypt(&nonce, Payload { msg: plain, aad: bound });
    let sealed = sealed.map_err(|_| ClaimError::Secrets("a secret is too large to be sealed".to_owned()))?;
    Ok([nonce.as_slice(), &sealed].concat())
}

fn unseal(key: &XChaCha20Poly1305, sealed: &[u8], bound: &[u8]) -> Result<Vec<u8>> {
    let broken = || ClaimError::Secrets("a secret was sealed with another key, or changed since".to_owned());
    let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or_else(broken)?;
    let nonce = XNonce::try_from(nonce).map_err(|_| broken())?;
    key.decrypt(&nonce, Payload { msg: sealed, aad: bound }).map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::databases;

    fn source(names: &[&str]) -> SecretSource {
        SecretSource::new(names.iter().map(|name| ((*name).to_owned(), [name.len() as u8; 32])).collect()).unwrap()
    }

    #[tokio::test]
    async fn secrets_are_given_to_their_jobs_alone_and_later_contexts_win() {
        for state in databases().await {
            let secrets = source(&["a"]);
            let mut connection = state.pool().acquire().await.unwrap();
            let all =
                [("project:p", "A", "1"), ("context:x", "A", "2"), ("context:y", "A", "3"), ("project:q", "A", "4")];
            for (owner, name, value) in all {
                secrets.set(&mut connection, owner, name, value).await.unwrap();
            }
            let given = secrets.given(&mut connection, "p", &["x".to_owned()]).await.unwrap();
            assert_eq!(given.variables, [("A".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())]);
            let twice = ["x", "y", "x"].map(str::to_owned);
            let given = secrets.given(&mut connection, "p", &twice).await.unwrap();
            assert_eq!(given.variables.last().unwrap().1, "2");
            assert!(secrets.remove(&mut connection, "context:x", "A").await.unwrap());
            assert!(!secrets.remove(&mut connection, "context:x", "A").await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_new_key_opens_what_an_old_one_sealed_and_takes_over() {
        for state in databases().await {
            let mut connection = state.pool().acquire().await.unwrap();
            source(&["a"]).set(&mut connection, "project:p", "A", "hunter2").await.unwrap();
            let both = source(&["a", "bb"]);
            assert_eq!(both.given(&mut connection, "p", &[]).await.unwrap().variables[0].1, "hunter2");
            assert_eq!(both.rewrap(&mut connection).await.unwrap(), 1);
            let new = source(&["bb"]);
            assert_eq!(new.given(&mut connection, "p", &[]).await.unwrap().variables[0].1, "hunter2");
            let error = source(&["a"]).given(&mut connection, "p", &[]).await.unwrap_err().to_string();
            assert!(error.contains("\"bb\""), "{error}");
        }
    }

    #[tokio::test]
    async fn a_key_that_is_not_understood_is_no_empty_key() {
        for state in databases().await {
            let secrets = source(&["a"]);
            let mut connection = state.pool().acquire().await.unwrap();
            for broken in ["hunter2", "{}", r#"{"text": "", "md5": "0"}"#, r#"{"text": ["hunter2"], "md5": "0"}"#] {
                secrets.set(&mut connection, "keys:p", "SHA256:0", broken).await.unwrap();
                let error = secrets.given(&mut connection, "p", &[]).await.unwrap_err().to_string();
                assert!(error.contains("SHA256:0") && !error.contains("hunter2"), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn a_secret_that_was_moved_or_changed_does_not_open() {
        for state in databases().await {
            let secrets = source(&["a"]);
            let mut connection = state.pool().acquire().await.unwrap();
            secrets.set(&mut connection, "context:mine", "A", "hunter2").await.unwrap();
            sqlx::query("UPDATE secrets SET owner = 'context:yours'").execute(&mut *connection).await.unwrap();
            assert!(secrets.given(&mut connection, "p", &["yours".to_owned()]).await.is_err());
        }
    }
}
