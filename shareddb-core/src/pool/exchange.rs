//! One statement over a held connection: sent, healed, and what its failure says about the connection.

use std::pin::pin;

use futures_util::TryStreamExt as _;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::calls::Call;
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
    /// What `take` makes of the rows.
    pub(super) async fn query<T: Default>(&self, sql: &str, params: Params<'_>, take: fn(&mut T, Row)) -> Result<T> {
        let mut again = true;
        loop {
            let call = self.begin().await?;
            let result = self.send_query(sql, params, take).await;
            call.end();
            match result {
                Ok(taken) => return Ok(taken),
                Err(Failure::Server(error)) if self.heals(sql, &error) && again => again = false,
                Err(failure) => return Err(self.failed(failure)),
            }
        }
    }

    pub(super) async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64> {
        let mut again = true;
        loop {
            let call = self.begin().await?;
            let result = self.send_execute(sql, params).await;
            call.end();
            match result {
                Ok(count) => return Ok(count),
                Err(Failure::Server(error)) if self.heals(sql, &error) && again => again = false,
                Err(failure) => return Err(self.failed(failure)),
            }
        }
    }

    pub(super) async fn batch(&self, sql: &str) -> Result<()> {
        let call = self.begin().await?;
        self.leave_traces(sql);
        let result = self.link().session.batch_execute(sql).await;
        call.end();
        result.map_err(|error| self.failed(Failure::Server(error)))
    }

    /// Several statements of one text that are the pool's own, whatever goes on.
    pub(super) async fn send_batch(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        let call = self.link().calls.force();
        let result = self.link().session.batch_execute(sql).await;
        call.end();
        result
    }

    /// Begins a call, after what was abandoned over this connection has ended.
    pub(super) async fn begin(&self) -> Result<Call<'_>> {
        let (link, transaction) = (self.link(), self.course.is_some());
        loop {
            if let Some(call) = link.calls.begin(transaction) {
                // Counted first: whoever ends the transaction waits for those that are, and the others see it here.
                return match self.may_go_on() {
                    Ok(()) => Ok(call),
                    Err(error) => {
                        call.end();
                        Err(error)
                    }
                };
            }
            // In a box: its state is large, and every statement would carry it along.
            if !Box::pin(link.settle(transaction)).await {
                return Err(self.unsettled());
            }
        }
    }

    fn may_go_on(&self) -> Result<()> {
        match &self.course {
            Some(course) if course.is_open() => Ok(()),
            Some(_) => Err(Error::invalid_input("transaction_over", "the transaction has ended already")),
            None if self.shared().has_ended() => Err(fault::closed()),
            None => Ok(()),
        }
    }

    /// What was abandoned goes on.
    pub(super) fn unsettled(&self) -> Error {
        self.link().calls.breaks();
        let message = format!("the connection of {}: a statement that was abandoned did not end", self.label);
        Error::unavailable("connection_lost", message).with_hint("get another connection")
    }

    async fn send_query<T: Default>(&self, sql: &str, params: Params<'_>, take: fn(&mut T, Row)) -> Result<T, Failure> {
        let session = &self.link().session;
        let rows = match self.shared().options.statements {
            Statements::Cached => session.query_raw(&self.prepared(sql).await?, params.iter().copied()).await?,
            Statements::Unnamed => session.query_typed_raw(sql, self.typed(sql, params)?).await?,
        };
        let mut rows = pin!(rows);
        let mut taken = T::default();
        // To the end, whatever is wanted of them: until then the server is at work for this caller.
        while let Some(row) = rows.try_next().await? {
            take(&mut taken, row);
        }
        Ok(taken)
    }

    /// As `send_query`, except that the driver looks at no row and so at no row's types.
    async fn send_execute(&self, sql: &str, params: Params<'_>) -> Result<u64, Failure> {
        let session = &self.link().session;
        match self.shared().options.statements {
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
            self.leave_traces(sql);
        }
        Ok(prepared.statement)
    }

    fn typed<'a>(&self, sql: &str, params: Params<'a>) -> Result<Vec<(&'a (dyn ToSql + Sync), Type)>, Failure> {
        if pooling::leaves_traces(sql) {
            self.leave_traces(sql);
        }
        let typed = |(index, value): (usize, &&'a (dyn ToSql + Sync))| match type_of(*value) {
            Some(of) => Ok((*value, of)),
            None => Err(Failure::Untyped(index + 1)),
        };
        params.iter().enumerate().map(typed).collect()
    }

    fn leave_traces(&self, sql: &str) {
        let link = self.link();
        link.calls.leave_traces();
        if pooling::is_about_statements(sql) {
            // What the driver and the next caller prepare has names, too; a reset tells them from the caller's in no way.
            link.calls.breaks();
            link.statements.clear();
        }
    }

    /// Whether the statement can be sent once more, and its cause is out of the way: nothing was executed.
    fn heals(&self, sql: &str, error: &tokio_postgres::Error) -> bool {
        // What the driver prepares by itself, it prepares when the statement is on its way.
        if self.is_unnamed() {
            return false;
        }
        let statements = &self.link().statements;
        let healed = match Trouble::of(error) {
            Trouble::StalePlan => {
                statements.clear();
                true
            }
            // It was in order before: something that it names has become something else.
            Trouble::None if Trouble::is_of_meaning(error) => statements.forget(sql),
            _ => false,
        };
        match &self.course {
            // With it all that was before has failed.
            Some(course) if healed => {
                course.note(Trouble::StalePlan);
                false
            }
            _ => healed && !self.link().calls.has_traces(),
        }
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
                self.shared().suspect();
            }
            Trouble::ReadOnly if !meant => {
                self.link().calls.breaks();
                self.shared().suspect();
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
        let error = Error::from_query(&what, error);
        if self.is_unnamed() && matches!(error.sqlstate(), Some("26000" | "42P05")) {
            return error
                .with_hint("it may have been done; cast columns of types that are the database's own: mood::text");
        }
        error
    }

    fn is_unnamed(&self) -> bool {
        self.shared().options.statements == Statements::Unnamed
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
