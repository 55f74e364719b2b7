//! Which of several servers connections are to go to, by what each of them is: libpq's `target_session_attrs`.

use crate::config::SessionAttributes;

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    pub standby: bool,
    /// Transactions are read-only unless they say otherwise, or in any case.
    pub read_only: bool,
}

impl SessionAttributes {
    /// The first of the hosts that fits, in their order.
    pub fn choose<'a, H: ?Sized>(self, hosts: &[(&'a H, Role)]) -> Option<&'a H> {
        let first = |fits: fn(&Role) -> bool| hosts.iter().find(|(_, role)| fits(role)).map(|(host, _)| *host);
        match self {
            Self::Any => first(|_| true),
            Self::ReadWrite => first(|role| !role.standby && !role.read_only),
            Self::ReadOnly => first(|role| role.standby || role.read_only),
            Self::Primary => first(|role| !role.standby),
            Self::Standby => first(|role| role.standby),
            Self::PreferStandby => first(|role| role.standby).or_else(|| first(|_| true)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_fits_is_chosen() {
        let role = |standby, read_only| Role { standby, read_only };
        let all =
            [("s", role(true, true)), ("r", role(false, true)), ("p", role(false, false)), ("q", role(false, false))];
        for (attributes, expected) in [
            (SessionAttributes::Any, "s"),
            (SessionAttributes::ReadWrite, "p"),
            (SessionAttributes::ReadOnly, "s"),
            (SessionAttributes::Primary, "r"),
            (SessionAttributes::Standby, "s"),
            (SessionAttributes::PreferStandby, "s"),
        ] {
            assert_eq!(attributes.choose(&all), Some(expected), "{attributes:?}");
        }
        assert_eq!(SessionAttributes::Standby.choose(&all[1..]), None);
        assert_eq!(SessionAttributes::PreferStandby.choose(&all[1..]), Some("r"));
        assert_eq!(SessionAttributes::ReadWrite.choose(&all[..2]), None);
    }
}
