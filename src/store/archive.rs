//! The books as they are read: on a connection of their own, so that who reads never holds up who writes.

use sqlx::{AnyConnection, Row as _};

use super::{StoreError, plain, session};

/// What is over, for whoever asks.
pub struct Archive {
    pub(super) url: String,
    pub(super) node: String,
    /// Absent before the first question, and after one that was not answered.
    pub(super) connection: Option<AnyConnection>,
}

impl Archive {
    /// The newest timeline of a call or a room that is over, in JSON. Dropped halfway it leaves nothing behind.
    ///
    /// # Errors
    /// What the database says; the next question connects again.
    pub async fn timeline(&mut self, room: &str) -> Result<Option<String>, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => session(&self.url).await?,
        };
        let sql =
            "SELECT timeline FROM timelines WHERE node = $1 AND room_id = $2 ORDER BY began_at DESC LIMIT 1";
        let query = sqlx::query(sql).bind(self.node.clone()).bind(plain(room));
        let row = query.fetch_optional(&mut connection).await?;
        self.connection = Some(connection);
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }
}
