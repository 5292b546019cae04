//! Spoils one delivery on its way to the judge: a judge that has never found anything has not
//! shown that it can.

use bytes::Bytes;

use crate::options::Sabotage;

/// The delivery that is spoilt: not the first, so that there is one before and after it.
const SPOILT: u64 = 2;

/// A record on its way to the judge: its place and payload.
pub type Delivery = (u64, Bytes);

/// Spoils one of the deliveries that pass through it.
#[derive(Debug)]
pub struct Saboteur {
    how: Sabotage,
    passed: u64,
    held: Option<Delivery>,
}

impl Saboteur {
    /// One that does this.
    #[must_use]
    pub fn new(how: Sabotage) -> Self {
        Self { how, passed: 0, held: None }
    }

    /// What the judge gets to see in place of this delivery.
    pub fn pass(&mut self, delivery: Delivery) -> Vec<Delivery> {
        self.passed += 1;
        if let Some(held) = self.held.take() {
            return vec![delivery, held];
        }
        if self.passed != SPOILT {
            return vec![delivery];
        }
        match self.how {
            Sabotage::Drop => vec![],
            Sabotage::Double => vec![delivery.clone(), delivery],
            Sabotage::Swap => {
                self.held = Some(delivery);
                vec![]
            }
            Sabotage::Corrupt => {
                let mut bytes = delivery.1.to_vec();
                if let Some(byte) = bytes.last_mut() {
                    *byte ^= 1;
                }
                vec![(delivery.0, bytes.into())]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seqs(how: Sabotage) -> Vec<u64> {
        let mut saboteur = Saboteur::new(how);
        let passed = (1..=4).flat_map(|seq| saboteur.pass((seq, Bytes::from_static(b"abc"))));
        passed.map(|(seq, _)| seq).collect()
    }

    #[test]
    fn one_delivery_is_spoilt_and_no_other() {
        assert_eq!(seqs(Sabotage::Drop), [1, 3, 4]);
        assert_eq!(seqs(Sabotage::Double), [1, 2, 2, 3, 4]);
        assert_eq!(seqs(Sabotage::Swap), [1, 3, 2, 4]);
        let mut saboteur = Saboteur::new(Sabotage::Corrupt);
        let payloads = [1, 2, 3].map(|seq| saboteur.pass((seq, Bytes::from_static(b"abc")))[0].1.clone());
        assert_eq!(payloads, [&b"abc"[..], b"abb", b"abc"]);
    }
}
