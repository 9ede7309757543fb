//! What the next responses answer: a queue in the order of the commands (RFC 2449 section 6.6).
//!
//! Pure. It also says which commands may be on their way together: those that change what the ones behind them mean
//! go alone.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::wire::pop3::command::Kind;

/// The answers that are owed, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: VecDeque<Answer>,
    /// How many of them the upstream owes us.
    upstream: usize,
}

/// An answer that is owed to the client, by what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Ours, ready.
    Own(String),
    /// One status line, verbatim.
    Line,
    /// One status line that may end the login.
    Login,
    /// An exchange of challenges and responses.
    Exchange,
    /// A status line and lines up to the dot, verbatim.
    List,
    /// The list of capabilities, reduced.
    Capabilities,
    /// The list of mechanisms, reduced.
    Mechanisms,
    /// A whole message, judged.
    Message(u32),
    /// The beginning of a message that is known to wear a stamp.
    Top(u32),
    /// A whole message that was asked for by TOP, of which the client wants so many lines; and the client's own line,
    /// for a server that refuses ours.
    WholeTop {
        /// The message's number.
        message: u32,
        /// The body lines the client asked for.
        lines: u64,
        /// The client's own command.
        line: Bytes,
    },
    /// One status line, and the session is over.
    Quit,
}

/// How a command travels with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Behind others and before others.
    Free,
    /// Behind others; nothing follows before its answer.
    Last,
    /// Alone.
    Alone,
}

/// Answers owed at most; further commands stay in the read buffer.
const PENDING_MAX: usize = 64;

impl Pending {
    /// Whether a command may join those on their way.
    pub(super) fn admits(&self, pace: Pace, pipelining: bool) -> bool {
        match pace {
            _ if self.queue.is_empty() => true,
            Pace::Alone => false,
            Pace::Free | Pace::Last => !self.is_full() && (pipelining || self.upstream == 0),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= PENDING_MAX
    }

    /// Whether an answer on its way needs to know how `message` was shown.
    pub(super) fn needs(&self, message: u32) -> bool {
        self.queue.contains(&Answer::Top(message))
    }

    pub(super) fn push(&mut self, answer: Answer) {
        self.upstream += usize::from(answer.is_from_upstream());
        self.queue.push_back(answer);
    }

    /// The answer that is due.
    pub(super) fn pop(&mut self) -> Option<Answer> {
        let answer = self.queue.pop_front()?;
        self.upstream -= usize::from(answer.is_from_upstream());
        Some(answer)
    }
}

impl Answer {
    /// What answers a command that is passed on as it is. (A TOP passed on as it is gets its lines as they are.)
    pub(super) fn to(kind: &Kind) -> Self {
        match kind {
            Kind::Pass | Kind::Apop(_) => Self::Login,
            Kind::Auth(_) => Self::Exchange,
            Kind::AuthList => Self::Mechanisms,
            Kind::Capa => Self::Capabilities,
            Kind::Retr(message) => Self::Message(*message),
            Kind::Quit => Self::Quit,
            kind if kind.is_multi_line() => Self::List,
            _ => Self::Line,
        }
    }

    fn is_from_upstream(&self) -> bool {
        !matches!(self, Self::Own(_))
    }
}

impl Pace {
    /// How a command travels: those of the transaction state together, those that log in, list or switch alone.
    pub(super) fn of(kind: &Kind) -> Self {
        match kind {
            Kind::Stat
            | Kind::List(_)
            | Kind::Uidl(_)
            | Kind::Top(..)
            | Kind::Retr(_)
            | Kind::Dele(_)
            | Kind::Noop
            | Kind::Rset => Self::Free,
            Kind::Quit => Self::Last,
            Kind::User(_)
            | Kind::Pass
            | Kind::Apop(_)
            | Kind::Auth(_)
            | Kind::AuthList
            | Kind::Capa
            | Kind::Stls
            | Kind::Utf8
            | Kind::Lang(_) => Self::Alone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(answers: &[Answer]) -> Pending {
        let mut pending = Pending::default();
        answers.iter().cloned().for_each(|answer| pending.push(answer));
        pending
    }

    #[test]
    fn who_may_travel_with_whom() {
        let own = || Answer::Own("-ERR\r\n".into());
        // What is owed; the pace of the next; admitted one at a time; admitted with pipelining.
        let rows: &[(Vec<Answer>, Pace, bool, bool)] = &[
            (vec![], Pace::Alone, true, true),
            (vec![], Pace::Free, true, true),
            (vec![Answer::Line], Pace::Free, false, true),
            (vec![Answer::Line], Pace::Last, false, true),
            (vec![Answer::Line], Pace::Alone, false, false),
            (vec![own()], Pace::Free, true, true),
            (vec![own()], Pace::Alone, false, false),
            (vec![own(), Answer::List, own()], Pace::Free, false, true),
            (vec![Answer::Line; PENDING_MAX], Pace::Free, false, false),
        ];
        for (owed, pace, one, many) in rows {
            let pending = pending(owed);
            assert_eq!(
                (pending.admits(*pace, false), pending.admits(*pace, true)),
                (*one, *many),
                "{owed:?} {pace:?}"
            );
        }
    }

    #[test]
    fn answers_are_due_in_the_order_of_their_commands() {
        let owed = [Answer::Line, Answer::Own("-ERR\r\n".into()), Answer::Message(2), Answer::Quit];
        let mut pending = pending(&owed);
        for answer in owed {
            assert_eq!(pending.pop(), Some(answer));
        }
        assert!(!pending.needs(2));
        pending.push(Answer::Top(2));
        assert!(pending.needs(2) && !pending.needs(3));
        pending.pop();
        assert!(pending.pop().is_none() && pending.is_empty());
        assert!(pending.admits(Pace::Free, false));
    }
}
