//! What the client of a connection may send of all its bodies ahead of what apps take: a little that is its own, and more that it
//! borrows from a pool of all connections once it sends so much. What was granted can't be taken back (RFC 9113 §6.9), so the loan
//! lasts as long as the connection; who gets none goes on with its own.

use std::sync::Arc;

use crate::{
    address::Client,
    shares::{Seat, Shares},
};

/// A connection's own bytes: what both sides may send before anything is agreed (RFC 9113 §6.9.2).
pub(super) const OWN: u32 = 65_535;
/// Bytes with a loan.
pub(super) const BORROWED: u32 = 1024 * 1024;

/// What all connections together may borrow; whom they come from is not known of those that a trusted proxy passes on.
pub(crate) type Pool = Shares<Option<Client>>;

/// Whom a connection may borrow from, and for whom.
#[derive(Debug, Clone)]
pub(crate) struct Lender {
    pub(crate) pool: Arc<Pool>,
    pub(crate) client: Option<Client>,
}

/// A connection's.
#[derive(Debug)]
pub(super) struct Ahead {
    lender: Option<Lender>,
    loan: Option<Seat<Option<Client>>>,
    /// Bytes that the client may send, and those of which it has not been told.
    window: i64,
    credit: u32,
}

impl Ahead {
    /// Nothing was sent yet.
    pub(super) fn new(lender: Option<Lender>) -> Self {
        Self { lender, loan: None, window: OWN.into(), credit: 0 }
    }

    /// So many bytes have come; how many more the client is to be told of, or nothing if these were more than it might send.
    pub(super) fn come(&mut self, bytes: u32) -> Option<u32> {
        self.window -= i64::from(bytes);
        if self.window < 0 {
            return None;
        }
        let short = self.loan.is_none() && self.window < i64::from(OWN / 2);
        Some(if short { self.borrow() } else { 0 })
    }

    /// So many bytes have gone; how many more the client is to be told of, once that is worth a word.
    pub(super) fn go(&mut self, bytes: u32) -> u32 {
        self.credit += bytes;
        let all = if self.loan.is_some() { BORROWED } else { OWN };
        if self.credit >= all / 2 { self.grant(0) } else { 0 }
    }

    /// Nothing is kept of its bodies any more.
    pub(super) fn close(&mut self) {
        (self.lender, self.loan) = (None, None);
    }

    fn borrow(&mut self) -> u32 {
        let more = BORROWED - OWN;
        let lent = |lender: &Lender| lender.pool.take(&lender.client, more.into());
        self.loan = self.lender.as_ref().and_then(lent);
        if self.loan.is_some() { self.grant(more) } else { 0 }
    }

    fn grant(&mut self, more: u32) -> u32 {
        let granted = more + std::mem::take(&mut self.credit);
        self.window += i64::from(granted);
        granted
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(pool: &Arc<Pool>, address: &str) -> Ahead {
        let client = Some(Client::at(address.parse().unwrap()));
        Ahead::new(Some(Lender { pool: Arc::clone(pool), client }))
    }

    #[test]
    fn who_sends_more_than_a_little_borrows_and_gives_it_back_in_the_end() {
        let loans = |number: u64| Arc::new(Pool::new(u32::MAX, number * u64::from(BORROWED - OWN)));
        let pool = loans(2);
        let mut one = of(&pool, "192.0.2.1");
        assert_eq!(one.come(OWN / 2), Some(0));
        assert_eq!(one.come(2), Some(BORROWED - OWN));
        assert_eq!((one.go(OWN / 2), one.come(OWN)), (0, Some(0)));
        assert_eq!(one.go(BORROWED / 2), BORROWED / 2 + OWN / 2, "it is told of much at once");
        let mut two = of(&pool, "192.0.2.2");
        assert_eq!(two.come(OWN), Some(0), "as much as it leaves free is none");
        one.close();
        assert_eq!((two.go(OWN / 2), two.come(OWN / 2)), (OWN / 2, Some(BORROWED - OWN)));
    }

    #[test]
    fn without_a_loan_it_goes_on_with_its_own_and_no_more() {
        let mut ahead = Ahead::new(None);
        assert_eq!(ahead.come(OWN), Some(0));
        assert_eq!((ahead.go(1), ahead.go(OWN / 2 - 1)), (0, OWN / 2));
        assert_eq!((ahead.come(OWN / 2), ahead.come(1)), (Some(0), None));
    }
}
