//! Sums of `numeric` as it goes over the wire (`numeric_send`, src/backend/utils/adt/numeric.c): digits to the base of 10,000, the
//! weight of the first, a sign, and how many decimal places are shown.
//!
//! **Invariant.** [`NumericSum::write`] makes the value that PostgreSQL's own `sum` has for what was added, shown with as many places
//! as the one of them that shows most.

use super::AggregateError;

const BASE: i64 = 10_000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const MINUS_INFINITY: u16 = 0xF000;

/// What has been added. Digits are not carried until the end: 64 bits are enough for more rows than a table can have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct NumericSum {
    /// The least significant first.
    digits: Vec<i64>,
    /// Which power of the base the first of them counts.
    lowest: i32,
    places: u16,
    is_nan: bool,
    is_infinite: bool,
    is_minus_infinite: bool,
}

impl NumericSum {
    /// Adds a value in binary.
    pub fn add(&mut self, value: &[u8]) -> Result<(), AggregateError> {
        let mut words = value.chunks_exact(2).map(|word| u16::from_be_bytes([word[0], word[1]]));
        let mut word = || words.next().ok_or(AggregateError::Malformed);
        let (count, weight, sign, places) = (word()?, word()?.cast_signed(), word()?, word()?);
        if value.len() != 8 + usize::from(count) * 2 {
            return Err(AggregateError::Malformed);
        }
        match sign {
            NAN => self.is_nan = true,
            INFINITY => self.is_infinite = true,
            MINUS_INFINITY => self.is_minus_infinite = true,
            // The carry would have no weight.
            0 | NEGATIVE if weight == i16::MAX => return Err(AggregateError::Overflow),
            0 | NEGATIVE => {
                self.places = self.places.max(places);
                let sign = if sign == NEGATIVE { -1 } else { 1 };
                for (power, digit) in (i32::from(weight) - i32::from(count) + 1..=i32::from(weight)).rev().zip(words) {
                    *self.digit(power) += sign * i64::from(digit);
                }
            }
            _ => return Err(AggregateError::Malformed),
        }
        Ok(())
    }

    /// Bytes on the heap.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.digits.capacity() * size_of::<i64>()
    }

    fn digit(&mut self, power: i32) -> &mut i64 {
        if self.digits.is_empty() {
            self.lowest = power;
        }
        if power < self.lowest {
            let missing = (self.lowest - power) as usize;
            self.digits.splice(0..0, std::iter::repeat_n(0, missing));
            self.lowest = power;
        }
        let place = (power - self.lowest) as usize;
        if self.digits.len() <= place {
            self.digits.resize(place + 1, 0);
        }
        &mut self.digits[place]
    }

    /// The sum in binary.
    pub fn to_bytes(&self) -> Vec<u8> {
        let special = match (self.is_nan, self.is_infinite, self.is_minus_infinite) {
            (true, _, _) | (false, true, true) => Some(NAN),
            (false, true, false) => Some(INFINITY),
            (false, false, true) => Some(MINUS_INFINITY),
            (false, false, false) => None,
        };
        if let Some(sign) = special {
            return [0, 0, sign, 0].into_iter().flat_map(u16::to_be_bytes).collect();
        }
        let (digits, is_negative) = self.carried();
        let trailing = digits.iter().take_while(|digit| **digit == 0).count();
        let digits = &digits[trailing..];
        let digits = &digits[..digits.iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1)];
        let weight = if digits.is_empty() { 0 } else { self.lowest + (trailing + digits.len()) as i32 - 1 };
        let sign = if is_negative { NEGATIVE } else { 0 };
        // Both fit: what was added did.
        let header = [digits.len() as u16, (weight as i16).cast_unsigned(), sign, self.places];
        header.into_iter().chain(digits.iter().rev().copied()).flat_map(u16::to_be_bytes).collect()
    }

    /// Digits as they should be, and whether the value is below zero.
    fn carried(&self) -> (Vec<u16>, bool) {
        let carry = |sign: i64| {
            let (mut carry, mut carried) = (0, Vec::with_capacity(self.digits.len() + 2));
            for digit in &self.digits {
                carry += sign * digit;
                carried.push(carry.rem_euclid(BASE) as u16);
                carry = carry.div_euclid(BASE);
            }
            while carry > 0 {
                carried.push((carry % BASE) as u16);
                carry /= BASE;
            }
            (carry == 0).then_some(carried)
        };
        // What is left over is below zero only if the value is.
        match carry(1) {
            Some(digits) => (digits, false),
            None => (carry(-1).unwrap_or_default(), true),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A whole number of 10^-12, shown with so many places, which it does not exceed.
    fn encode(value: i128, places: u16) -> Vec<u8> {
        let mut rest = value.unsigned_abs();
        let mut digits = Vec::new();
        while rest > 0 {
            digits.insert(0, (rest % 10_000) as u16);
            rest /= 10_000;
        }
        let weight = digits.len() as i16 - 4;
        while digits.last() == Some(&0) {
            digits.pop();
        }
        let weight = if digits.is_empty() { 0 } else { weight };
        let sign = if value < 0 { NEGATIVE } else { 0 };
        let header = [digits.len() as u16, weight.cast_unsigned(), sign, places];
        header.into_iter().chain(digits).flat_map(u16::to_be_bytes).collect()
    }

    proptest! {
        #[test]
        fn a_sum_is_the_sum(values in prop::collection::vec((any::<i64>(), 0u16..=12), 0..40)) {
            let mut sum = NumericSum::default();
            let (mut expected, mut most) = (0i128, 0);
            for (value, places) in &values {
                let value = i128::from(*value) * 10i128.pow(u32::from(12 - places));
                prop_assert_eq!(sum.add(&encode(value, *places)), Ok(()));
                expected += value;
                most = most.max(*places);
            }
            prop_assert_eq!(sum.to_bytes(), encode(expected, most));
        }

        #[test]
        fn no_bytes_make_it_panic(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6)) {
            let mut sum = NumericSum::default();
            for value in values {
                let _ = sum.add(&value);
            }
            let _ = sum.to_bytes();
        }
    }

    #[test]
    fn what_is_no_number_stays_so() {
        let special = |sign: u16| [0, 0, sign, 0].into_iter().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
        let sum = |signs: &[u16]| {
            let mut sum = NumericSum::default();
            sum.add(&encode(5, 12)).expect("a number");
            signs.iter().for_each(|sign| sum.add(&special(*sign)).expect("no number"));
            sum.to_bytes()
        };
        assert_eq!(sum(&[NAN, INFINITY]), special(NAN));
        assert_eq!(sum(&[INFINITY, INFINITY]), special(INFINITY));
        assert_eq!(sum(&[MINUS_INFINITY]), special(MINUS_INFINITY));
        assert_eq!(sum(&[INFINITY, MINUS_INFINITY]), special(NAN));
        assert_eq!(NumericSum::default().add(b"\0\0"), Err(AggregateError::Malformed));
    }
}
