//! One SQL text for SQLite and PostgreSQL: placeholders are `$1`, which both take, types are those that both know.
//! Texts with many placeholders have `?` for SQLite, to which `$1` is a name that it searches in a list of all names.

use alloy::primitives::{Address, B256};
use sqlx::{
    AssertSqlSafe, ColumnIndex, Database, Decode, PgPool, Postgres, Row as _, Sqlite, SqlitePool,
    Transaction, Type, postgres::PgRow, query::Query, sqlite::SqliteRow,
};

use super::StoreError;

/// A value for a placeholder.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Integer(Option<i64>),
    Bytes(Option<Vec<u8>>),
    Text(String),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(Some(value))
    }
}

impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Integer(value)
    }
}

impl From<Address> for Value {
    fn from(address: Address) -> Self {
        Self::Bytes(Some(address.to_vec()))
    }
}

impl From<B256> for Value {
    fn from(word: B256) -> Self {
        Self::Bytes(Some(word.to_vec()))
    }
}

impl From<Option<Address>> for Value {
    fn from(address: Option<Address>) -> Self {
        Self::Bytes(address.map(|address| address.to_vec()))
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Some(bytes))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// The text of a statement that a test prepares on both databases, or its beginning. Only [`statements!`] makes one, so
/// that none can be forgotten there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Statement(&'static str);

impl Statement {
    /// For [`statements!`] alone.
    pub(super) const fn listed(text: &'static str) -> Self {
        Self(text)
    }

    pub(super) const fn text(self) -> &'static str {
        self.0
    }
}

/// Names statements, and lists them for the test.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: $crate::store::sql::Statement =
            $crate::store::sql::Statement::listed($text);)*
        #[cfg(test)]
        pub(crate) const ALL: &[$crate::store::sql::Statement] = &[$($name),*];
    };
}
pub(super) use statements;

/// Statements of PostgreSQL alone.
pub(super) mod postgres {
    super::statements! {
        /// No other writer may run beside.
        LOCK_WRITERS = "lock table source in share row exclusive mode";
        TRY_TO_LEAD = "select pg_try_advisory_lock($1)";
        /// Whole columns at once: a placeholder for each value costs the server as much as the row does.
        INSERT_EVENTS = "insert into event (block_number, log_index, contract_id, kind_id, transaction_hash, log,
             app, proposal_key, compose_key, run_key, dataset_key, superseded_key)
             select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[],
             $7::bytea[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[])";
    }
}

/// A statement with its values. Its text holds placeholders only; nothing from outside ever gets into it.
#[derive(Debug, Clone)]
pub(super) struct Sql {
    text: String,
    values: Vec<Value>,
    sqlite: bool,
}

impl Sql {
    pub(super) fn new(statement: Statement) -> Self {
        Self { text: statement.0.to_owned(), values: Vec::new(), sqlite: false }
    }

    /// The beginning of a statement whose values are all added by [`Self::value`].
    pub(super) fn begin(statement: Statement, sqlite: bool) -> Self {
        Self { sqlite, ..Self::new(statement) }
    }

    /// Adds text.
    pub(super) fn push(&mut self, text: &'static str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Adds a placeholder with its value.
    pub(super) fn value(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        if self.sqlite {
            self.text.push('?');
        } else {
            self.text.push('$');
            self.text.push_str(&self.values.len().to_string());
        }
        self
    }

    /// Gives the next placeholder of the text its value.
    pub(super) fn with(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    #[cfg(test)]
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

macro_rules! bound {
    ($sql:expr, $db:ty) => {{
        let Sql { text, values, .. } = $sql;
        let mut query: Query<'_, $db, _> = sqlx::query(AssertSqlSafe(text));
        for value in values {
            query = match value {
                Value::Integer(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
            };
        }
        query
    }};
}

/// Connections to one database.
#[derive(Debug, Clone)]
pub(super) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Pool {
    /// A transaction for several reads of one state.
    pub(super) async fn read(&self) -> Result<Tx, StoreError> {
        Ok(match self {
            Self::Sqlite(pool) => Tx::Sqlite(pool.begin().await?),
            Self::Postgres(pool) => {
                Tx::Postgres(pool.begin_with("begin isolation level repeatable read read only").await?)
            }
        })
    }

    /// A transaction that no other writer runs beside.
    pub(super) async fn write(&self) -> Result<Tx, StoreError> {
        Ok(match self {
            Self::Sqlite(pool) => Tx::Sqlite(pool.begin_with("begin immediate").await?),
            Self::Postgres(pool) => {
                let mut tx = Tx::Postgres(pool.begin().await?);
                tx.execute(Sql::new(postgres::LOCK_WRITERS)).await?;
                tx
            }
        })
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// A transaction; dropping it takes it back.
#[derive(Debug)]
pub(super) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    pub(super) async fn rows(&mut self, sql: Sql) -> Result<Vec<Row>, StoreError> {
        Ok(match self {
            Self::Sqlite(tx) => {
                let rows = bound!(sql, Sqlite).fetch_all(&mut **tx).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(tx) => {
                let rows = bound!(sql, Postgres).fetch_all(&mut **tx).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    pub(super) async fn row(&mut self, sql: Sql) -> Result<Option<Row>, StoreError> {
        Ok(match self {
            Self::Sqlite(tx) => bound!(sql, Sqlite).fetch_optional(&mut **tx).await?.map(Row::Sqlite),
            Self::Postgres(tx) => bound!(sql, Postgres).fetch_optional(&mut **tx).await?.map(Row::Postgres),
        })
    }

    pub(super) async fn execute(&mut self, sql: Sql) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => bound!(sql, Sqlite).execute(&mut **tx).await.map(|_| ())?,
            Self::Postgres(tx) => bound!(sql, Postgres).execute(&mut **tx).await.map(|_| ())?,
        }
        Ok(())
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }

    pub(super) fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }
}

/// A row of an answer.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    fn get<'r, T>(&'r self, column: &'static str) -> Result<T, StoreError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
        &'static str: ColumnIndex<SqliteRow> + ColumnIndex<PgRow>,
    {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(super) fn bytes(&self, column: &'static str) -> Result<&[u8], StoreError> {
        self.get(column)
    }

    pub(super) fn optional(&self, column: &'static str) -> Result<Option<u64>, StoreError> {
        let value: Option<i64> = self.get(column)?;
        value.map(|value| u64::try_from(value).map_err(|e| undecodable(column, e))).transpose()
    }

    pub(super) fn number(&self, column: &'static str) -> Result<u64, StoreError> {
        let value: i64 = self.get(column)?;
        u64::try_from(value).map_err(|e| undecodable(column, e))
    }

    /// An integer of the database's own.
    pub(super) fn id(&self, column: &'static str) -> Result<i64, StoreError> {
        self.get(column)
    }

    pub(super) fn word(&self, column: &'static str) -> Result<B256, StoreError> {
        let bytes: &[u8] = self.get(column)?;
        B256::try_from(bytes).map_err(|e| undecodable(column, e))
    }

    pub(super) fn address(&self, column: &'static str) -> Result<Address, StoreError> {
        let bytes: &[u8] = self.get(column)?;
        Address::try_from(bytes).map_err(|e| undecodable(column, e))
    }
}

fn undecodable(column: &str, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Sql(sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(source) })
}

/// A migration's text for one database: what is marked `/*sqlite: ... */` is a comment to PostgreSQL.
pub(super) fn dialect<DB: Database>(text: &str) -> String {
    match DB::NAME {
        "SQLite" => text.replace("/*sqlite:", "").replace("*/", ""),
        _ => text.to_owned(),
    }
}
