//! One statement over a held connection: sent, healed, and what its failure says about the connection.

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::fault;
use super::held::Held;
use super::options::Statements;
use super::parameter::type_of;
use super::statement_cache::Prepared;
use super::transaction::Course;
use crate::error::{Error, Result, Trouble};
use crate::postgres::pooling;

/// The parameters of a statement.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Held {
    pub(super) async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        self.ready().await?;
        let mut again = true;
        loop {
            let call = self.link().calls.begin();
            let result = self.send_query(sql, params).await;
            call.end();
            match result {
                Ok(rows) => return Ok(rows),
                Err(Failure::Server(error)) if again && self.heals(&error) => again = false,
                Err(failure) => return Err(self.failed(failure)),
            }
        }
    }

    pub(super) async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64> {
        self.ready().await?;
        let mut again = true;
        loop {
            let call = self.link().calls.begin();
            let result = self.send_execute(sql, params).await;
            call.end();
            match result {
                Ok(count) => return Ok(count),
                Err(Failure::Server(error)) if again && self.heals(&error) => again = false,
                Err(failure) => return Err(self.failed(failure)),
            }
        }
    }

    pub(super) async fn batch(&self, sql: &str) -> Result<()> {
        self.ready().await?;
        self.link().calls.leave_traces();
        self.send_batch(sql).await.map_err(|error| self.failed(Failure::Server(error)))
    }

    /// Several statements of one text, with nothing noted.
    pub(super) async fn send_batch(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        let call = self.link().calls.begin();
        let result = self.link().session.batch_execute(sql).await;
        call.end();
        result
    }

    /// What was abandoned over this connection ends first: it would hold up what comes now, and cancelling it could
    /// meet what comes now.
    async fn ready(&self) -> Result<()> {
        if self.course.as_ref().is_some_and(|course| !course.is_open()) {
            return Err(Error::invalid_input("transaction_over", "the transaction has ended already"));
        }
        if self.shared.has_ended() && self.course.is_none() {
            return Err(fault::closed());
        }
        let link = self.link();
        if link.calls.is_abandoned() && !link.calls.is_busy() && !link.drain().await {
            link.calls.breaks();
            let message = format!("the connection of {}: a statement that was abandoned did not end", self.label);
            return Err(Error::unavailable("connection_lost", message).with_hint("get another connection"));
        }
        Ok(())
    }

    async fn send_query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Failure> {
        let session = &self.link().session;
        match self.shared.options.statements {
            Statements::Cached => Ok(session.query(&self.prepared(sql).await?, params).await?),
            Statements::Unnamed => Ok(session.query_typed(sql, &self.typed(sql, params)?).await?),
        }
    }

    async fn send_execute(&self, sql: &str, params: Params<'_>) -> Result<u64, Failure> {
        let session = &self.link().session;
        match self.shared.options.statements {
            Statements::Cached => Ok(session.execute(&self.prepared(sql).await?, params).await?),
            Statements::Unnamed => Ok(session.execute_typed(sql, &self.typed(sql, params)?).await?),
        }
    }

    async fn prepared(&self, sql: &str) -> Result<tokio_postgres::Statement, tokio_postgres::Error> {
        let link = self.link();
        let prepared = match link.statements.find(sql) {
            Some(prepared) => prepared,
            None => {
                let statement = link.session.prepare(sql).await?;
                let prepared = Prepared { statement, traces: pooling::leaves_traces(sql) };
                link.statements.insert(sql, &prepared);
                prepared
            }
        };
        if prepared.traces {
            link.calls.leave_traces();
        }
        Ok(prepared.statement)
    }

    fn typed<'a>(&self, sql: &str, params: Params<'a>) -> Result<Vec<(&'a (dyn ToSql + Sync), Type)>, Failure> {
        if pooling::leaves_traces(sql) {
            self.link().calls.leave_traces();
        }
        let typed = |(index, value): (usize, &&'a (dyn ToSql + Sync))| match type_of(*value) {
            Some(of) => Ok((*value, of)),
            None => Err(Failure::Untyped(index + 1)),
        };
        params.iter().enumerate().map(typed).collect()
    }

    /// Whether the statement can be sent once more, and its cause is out of the way: nothing was executed.
    fn heals(&self, error: &tokio_postgres::Error) -> bool {
        if Trouble::of(error) != Trouble::StalePlan {
            return false;
        }
        self.link().statements.clear();
        // In a transaction it has failed with all that was before.
        self.course.is_none() && !self.link().calls.has_traces()
    }

    /// Makes an error of it, and draws the conclusions for this connection and the others.
    pub(super) fn failed(&self, failure: Failure) -> Error {
        let error = match failure {
            Failure::Server(error) => error,
            Failure::Untyped(number) => {
                let message =
                    format!("a statement of {}: nobody can tell which type ${number} is for the server", self.label);
                return Error::invalid_input("parameter_type_unknown", message)
                    .with_hint("give it as text and cast it in the statement: $1::text::my_type");
            }
        };
        let trouble = Trouble::of(&error);
        if let Some(course) = &self.course {
            course.note(trouble);
        }
        let meant = self.course.as_ref().is_some_and(Course::is_read_only);
        match trouble {
            Trouble::Lost => {
                self.link().calls.breaks();
                self.shared.suspect();
            }
            Trouble::ReadOnly if !meant => {
                self.link().calls.breaks();
                self.shared.suspect();
            }
            _ => {}
        }
        let mut what = format!("a statement of {}", self.label);
        if trouble == Trouble::Lost
            && let Some(reason) = self.link().session.end_reason()
        {
            what.push_str(" (the server's last words: ");
            what.push_str(&reason);
            what.push(')');
        }
        Error::from_query(&what, error)
    }
}

/// Why a statement has no result.
pub(super) enum Failure {
    Server(tokio_postgres::Error),
    /// The parameter of this number has no type.
    Untyped(usize),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}
