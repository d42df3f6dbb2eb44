//! The database: the journal a node is restored from, and the books of calls, sessions and attendees.
//!
//! One schema on SQLite (embedded, a file of the state directory) and PostgreSQL (by URL); the migrations are in the
//! binary. Owns the connection, the statements and how a group of changes becomes one transaction. Decides nothing
//! about rooms, and never holds up who does: `app` writes through it on a task of its own.

mod archive;
mod books;
mod group;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::any::{AnyArguments, AnyRow, install_default_drivers};
use sqlx::migrate::Migrator;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Connection as _, Row as _};

use crate::signal::{Change, Row, Table};

pub use archive::Archive;

use group::Group;

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations");

/// Name of the database file, and of the file whose lock says that it is in use.
const FILE: &str = "turnkey.db";
const LOCK: &str = "turnkey.db.lock";

/// How often, and after which pause, the lock of a node is asked for: the connection of a server that was killed
/// takes a moment to end.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// SQLite, in this directory.
    Embedded(PathBuf),
    /// PostgreSQL, by its URL.
    Server(String),
}

/// Why the database cannot be used, in one line without its password.
#[derive(Debug)]
pub enum StoreError {
    /// Another process uses the file, or this node's rows.
    InUse,
    /// The file cannot be made or opened.
    File(std::io::Error),
    /// What the database says.
    Database(sqlx::Error),
    /// The schema cannot be brought up to date.
    Migration(sqlx::migrate::MigrateError),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse => f.write_str("another server uses it"),
            Self::File(error) => error.fmt(f),
            Self::Database(error) => error.fmt(f),
            Self::Migration(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// An open database.
pub struct Store {
    url: String,
    node: String,
    connection: AnyConnection,
    /// Held for as long as the file is in use.
    _lock: Option<std::fs::File>,
}

/// How a database wants the places of values marked.
#[derive(Clone, Copy)]
enum Marks {
    /// `?`. SQLite takes `$1` as well, but as a name that each value bound is looked for among all names of the statement.
    Question,
    /// `$1`, `$2`, the only way of PostgreSQL.
    Dollar,
}

impl Marks {
    /// A statement whose places are marked with `?`, and which has no other question mark.
    fn set(self, sql: String) -> String {
        match self {
            Self::Question => sql,
            Self::Dollar => {
                let mut parts = sql.split('?');
                let first = parts.next().unwrap_or_default().to_owned();
                (1..).zip(parts).fold(first, |sql, (n, part)| sql + &format!("${n}") + part)
            }
        }
    }
}

/// One statement with its values; those of the groups differ in length.
type Statement = Query<'static, Any, AnyArguments>;

impl Store {
    /// Opens the database, makes it where it is new, and brings its schema up to date. `node` names this server
    /// among those that share a database.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn open(location: &Location, node: &str) -> Result<Self, StoreError> {
        install_default_drivers();
        let (url, lock) = match location {
            Location::Embedded(directory) => {
                let lock = lock(directory)?;
                (file_url(directory)?, Some(lock))
            }
            Location::Server(url) => (url.clone(), None),
        };
        let connection = connect(&url).await?;
        let mut store = Self { url, node: node.to_owned(), connection, _lock: lock };
        for _ in 0..LOCK_TRIES {
            if store.lock_node().await? {
                return Ok(store);
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        Err(StoreError::InUse)
    }

    /// Takes the lock of this node's rows, which ends with the connection; whether nobody else has it. The file of
    /// SQLite has its own.
    async fn lock_node(&mut self) -> Result<bool, StoreError> {
        if is_embedded(&self.url) {
            return Ok(true);
        }
        let query = sqlx::query("SELECT pg_try_advisory_lock(hashtext('turnkey'), hashtext($1))");
        let row = query.bind(self.node.clone()).fetch_one(&mut self.connection).await?;
        Ok(row.try_get(0)?)
    }

    fn marks(&self) -> Marks {
        if is_embedded(&self.url) { Marks::Question } else { Marks::Dollar }
    }

    /// Connects again after an error.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn reconnect(&mut self) -> Result<(), StoreError> {
        self.connection = connect(&self.url).await?;
        // The database may still believe in the connection before, whose lock it is then.
        self.lock_node().await.map(drop)
    }

    /// What the journal has of this node.
    ///
    /// # Errors
    /// What the database says.
    pub async fn load(&mut self) -> Result<Vec<Row>, StoreError> {
        let query = sqlx::query("SELECT kind, owner, number, value FROM journal WHERE node = $1");
        let rows = query.bind(self.node.clone()).fetch_all(&mut self.connection).await?;
        Ok(rows.iter().filter_map(row).collect())
    }

    /// What reads the books beside it.
    #[must_use]
    pub fn archive(&self) -> Archive {
        Archive { url: self.url.clone(), node: self.node.clone(), connection: None }
    }

    /// Forgets some of the calls and sessions that were over before `before` (Unix seconds); whether there may be
    /// more of them.
    ///
    /// # Errors
    /// What the database says; then nothing was forgotten.
    pub async fn forget(&mut self, before: u64) -> Result<bool, StoreError> {
        let mut transaction = self.connection.begin().await?;
        let mut most = 0;
        for books::Forgotten { find, delete } in books::FORGOTTEN {
            let query = sqlx::query(*find).bind(self.node.clone()).bind(number(before)).bind(books::AT_ONCE);
            let rows = query.fetch_all(&mut *transaction).await?;
            most = most.max(rows.len());
            for row in &rows {
                let id: String = row.try_get(0)?;
                for sql in *delete {
                    sqlx::query(*sql).bind(id.clone()).execute(&mut *transaction).await?;
                }
            }
        }
        transaction.commit().await?;
        Ok(most as i64 >= books::AT_ONCE)
    }

    /// Writes a group of changes in one transaction; with `anew` the journal is emptied first.
    ///
    /// # Errors
    /// What the database says; then nothing was written.
    pub async fn write(&mut self, changes: Vec<Change>, anew: bool) -> Result<(), StoreError> {
        let (group, marks) = (Group::new(changes), self.marks());
        let mut transaction = self.connection.begin().await?;
        if anew {
            let wipe = sqlx::query("DELETE FROM journal WHERE node = $1").bind(self.node.clone());
            wipe.execute(&mut *transaction).await?;
        }
        let books = books::statements(&self.node, marks, group.records());
        for statement in group.statements(&self.node, marks).into_iter().chain(books) {
            statement.execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }
}

/// On a thread of its own: what runs the migrations is no future that can move between threads.
async fn connect(url: &str) -> Result<AnyConnection, StoreError> {
    let (runtime, url) = (tokio::runtime::Handle::current(), url.to_owned());
    let connecting = tokio::task::spawn_blocking(move || runtime.block_on(connect_here(&url)));
    connecting.await.unwrap_or_else(|error| Err(StoreError::File(std::io::Error::other(error))))
}

async fn connect_here(url: &str) -> Result<AnyConnection, StoreError> {
    let mut connection = session(url).await?;
    MIGRATIONS.run(&mut connection).await.map_err(StoreError::Migration)?;
    Ok(connection)
}

/// A connection with the settings that hold for each.
async fn session(url: &str) -> Result<AnyConnection, StoreError> {
    let mut connection = AnyConnection::connect(url).await?;
    // SQLite: a process that is killed loses nothing of what it has handed to the kernel.
    let settings: &[&'static str] = match is_embedded(url) {
        true => &["PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", "PRAGMA busy_timeout = 2000"],
        false => &["SET client_min_messages = warning"],
    };
    for setting in settings {
        sqlx::query(*setting).execute(&mut connection).await?;
    }
    Ok(connection)
}

fn is_embedded(url: &str) -> bool {
    url.starts_with("sqlite:")
}

/// The lock of the database file. Not on the file itself: its locks are SQLite's.
fn lock(directory: &Path) -> Result<std::fs::File, StoreError> {
    let file = private(&directory.join(LOCK)).map_err(StoreError::File)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse),
        Err(std::fs::TryLockError::Error(error)) => Err(StoreError::File(error)),
    }
}

/// The file's URL; the file is there, and nobody else can read it.
fn file_url(directory: &Path) -> Result<String, StoreError> {
    let path = directory.join(FILE);
    private(&path).map_err(StoreError::File)?;
    let mut url = "sqlite:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                url.push(char::from(*byte))
            }
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
    Ok(url)
}

/// A file of mode 0600, made where it is not there.
fn private(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn row(row: &AnyRow) -> Option<Row> {
    Some(Row {
        table: Table::parse(row.try_get::<&str, _>(0).ok()?)?,
        owner: unescaped(row.try_get::<&str, _>(1).ok()?),
        number: u64::try_from(row.try_get::<i64, _>(2).ok()?).ok()?,
        value: row.try_get::<&str, _>(3).ok()?.into(),
    })
}

fn statement(sql: String) -> Statement {
    sqlx::query(AssertSqlSafe(sql))
}

/// PostgreSQL's texts hold no NUL, room names may.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\0', "%00")
}

fn unescaped(text: &str) -> Box<str> {
    text.replace("%00", "\0").replace("%25", "%").into()
}

/// A text for people: without NUL.
fn plain(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_numbered_where_the_database_wants_it() {
        let sql = || "VALUES (?, ?), (?, ?)".to_owned();
        assert_eq!(Marks::Question.set(sql()), "VALUES (?, ?), (?, ?)");
        assert_eq!(Marks::Dollar.set(sql()), "VALUES ($1, $2), ($3, $4)");
        assert_eq!(Marks::Dollar.set("SELECT 1".to_owned()), "SELECT 1");
    }
}
