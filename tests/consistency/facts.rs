//! What an answer says about cells, and whether it can be true.

use std::collections::BTreeMap;

use super::cells::{Bounds, Cell};

#[derive(Debug, Clone)]
pub enum Fact {
    /// The cell has this value.
    Value(Cell, i64),
    /// The cell's value modulo `modulus` is `residue`, or, if not `is`, is something else.
    Residue { cell: Cell, modulus: i64, residue: i64, is: bool },
    /// These cells' values add up to `total`.
    Sum { cells: Vec<Cell>, total: i64 },
    /// Of these cells, `count` have a value that modulo `modulus` is `residue`.
    Count { cells: Vec<Cell>, modulus: i64, residue: i64, count: i64 },
    /// What no moment could have shown: a row missing or doubled, money made or lost.
    Impossible(String),
}

impl Fact {
    pub fn cells(&self) -> Vec<Cell> {
        match self {
            Self::Value(cell, _) | Self::Residue { cell, .. } => vec![*cell],
            Self::Sum { cells, .. } | Self::Count { cells, .. } => cells.clone(),
            Self::Impossible(_) => Vec::new(),
        }
    }
}

/// Why these facts, all of one answer, cannot be true together within `bounds`.
pub fn refute(facts: &[Fact], bounds: &Bounds) -> Option<String> {
    let mut shown = BTreeMap::new();
    for fact in facts {
        if let Fact::Value(cell, value) = *fact {
            let before = *shown.entry(cell).or_insert(value);
            if before != value {
                return Some(format!("{cell:?} is {before} and {value} in one answer: torn"));
            }
        }
    }
    facts.iter().find_map(|fact| refute_one(fact, &shown, bounds))
}

fn refute_one(fact: &Fact, shown: &BTreeMap<Cell, i64>, bounds: &Bounds) -> Option<String> {
    // What the answer itself shows of a cell narrows what is possible.
    let range = |cell: Cell| match shown.get(&cell) {
        Some(&value) => (value, value),
        None => (bounds.low.of(cell), bounds.high.of(cell)),
    };
    let has = |cell: Cell, modulus: i64, residue: i64| {
        let (low, high) = range(cell);
        let possible = (low..=high).take(modulus as usize + 1).map(|value| value.rem_euclid(modulus) == residue);
        possible.fold((true, false), |(all, any), has| (all && has, any || has))
    };
    match fact {
        Fact::Impossible(what) => Some(what.clone()),
        Fact::Value(cell, value) => {
            let (low, high) = (bounds.low.of(*cell), bounds.high.of(*cell));
            match value {
                value if *value < low => {
                    Some(format!("stale: {cell:?} is {value}, and was {low} before the read began"))
                }
                value if *value > high => {
                    Some(format!("never committed: {cell:?} is {value}, and could not be more than {high} by then"))
                }
                _ => None,
            }
        }
        Fact::Residue { cell, modulus, residue, is } => {
            let (all, any) = has(*cell, *modulus, *residue);
            let (low, high) = range(*cell);
            let refuted = if *is { !any } else { all };
            refuted.then(|| format!("no value of {cell:?} from {low} to {high} agrees with {fact:?}"))
        }
        Fact::Sum { cells, total } => {
            let low: i64 = cells.iter().map(|&cell| range(cell).0).sum();
            let high: i64 = cells.iter().map(|&cell| range(cell).1).sum();
            (!(low..=high).contains(total)).then(|| format!("{cells:?} add up to {total}, not to {low} to {high}"))
        }
        Fact::Count { cells, modulus, residue, count } => {
            let low = cells.iter().filter(|&&cell| has(cell, *modulus, *residue).0).count() as i64;
            let high = cells.iter().filter(|&&cell| has(cell, *modulus, *residue).1).count() as i64;
            (!(low..=high).contains(count)).then(|| format!("{low} to {high} are possible: {fact:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consistency::cells::{Adds, Family, Register};

    const A: Cell = Cell { family: Family::Point, id: 1 };
    const B: Cell = Cell { family: Family::Point, id: 2 };

    /// A was told to be 3, one more is on its way; B is 0.
    fn bounds() -> Bounds {
        let register = Register::new();
        let three = Adds::from([(A, 3)]);
        register.sending(&three);
        register.told(&three, &three);
        register.sending(&Adds::from([(A, 1)]));
        Bounds { low: register.low(), high: register.high() }
    }

    #[test]
    fn a_value_between_the_bounds_is_possible_and_no_other() {
        let refuted = |value| refute(&[Fact::Value(A, value)], &bounds()).is_some();
        assert_eq!([2, 3, 4, 5].map(refuted), [true, false, false, true]);
    }

    #[test]
    fn one_cell_has_one_value_in_one_answer() {
        assert!(refute(&[Fact::Value(A, 3), Fact::Value(B, 0), Fact::Value(A, 4)], &bounds()).is_some());
        assert!(refute(&[Fact::Value(A, 4), Fact::Value(B, 0), Fact::Value(A, 4)], &bounds()).is_none());
    }

    #[test]
    fn sums_residues_and_counts_are_held_to_what_the_cells_can_be() {
        let sum = |total| refute(&[Fact::Sum { cells: vec![A, B], total }], &bounds()).is_some();
        assert_eq!([2, 3, 4, 5].map(sum), [true, false, false, true]);
        let residue =
            |cell, residue, is| refute(&[Fact::Residue { cell, modulus: 2, residue, is }], &bounds()).is_some();
        assert!(!residue(A, 0, true) && !residue(A, 1, true) && !residue(A, 1, false));
        assert!(residue(B, 1, true) && residue(B, 0, false) && !residue(B, 0, true));
        let count =
            |count| refute(&[Fact::Count { cells: vec![A, B], modulus: 2, residue: 0, count }], &bounds()).is_some();
        assert_eq!([0, 1, 2, 3].map(count), [true, false, false, true]);
        let known_even = [Fact::Value(A, 4), Fact::Count { cells: vec![A, B], modulus: 2, residue: 0, count: 1 }];
        assert!(refute(&known_even, &bounds()).is_some());
    }
}
