//! What all apps of a server share, done before there is one.

use crate::error::Result;
use crate::postgres::statements as sql;
use crate::provision::Provisioner;
use crate::provision::event::Event;
use crate::provision::script;
use crate::provision::step::Step;
use crate::provision::walls;

impl Provisioner {
    /// Raises the walls of a server that was made for shareddb, as the first [`create`](Self::create) would: nobody has
    /// rights on the server's own databases by being PUBLIC. Gives what was done for that. On a server of somebody else it
    /// does nothing.
    ///
    /// # Errors
    /// What hinders a login or a statement. What was done stays done.
    pub async fn secure(&self) -> Result<Vec<Step>> {
        let session = self.server.session().await?;
        session.value("take the lock over the server", &sql::lock_shared(self.lock_patience)).await?;
        let facts = self.server.facts(&session).await?;
        let steps = if facts.ours { walls::shared_steps(&facts, true) } else { Vec::new() };
        for step in &steps {
            self.listener.tell(Event::Begun(step));
            for statement in script::shared(step, &facts) {
                session.run(&format!("do: {step}"), &statement).await?;
            }
            self.listener.tell(Event::Done(step));
        }
        // With the end of the session the lock would go as well, only later.
        let _ = session.value("give back the lock over the server", sql::UNLOCK_ALL).await;
        Ok(steps)
    }
}
