//! Dates and times as ISO 8601 has them, out of what PostgreSQL writes under `DateStyle = ISO`.

/// Digits of a year that has a sign in front, so that years before 1 and after 9999 can be told from others (ECMA-262).
const SIGNED_YEAR_DIGITS: usize = 6;

/// `2024-01-31`, `12024-01-31`, `0044-03-15 BC`, `infinity`.
pub fn date(text: &str) -> String {
    let (text, before_christ) = before_christ(text);
    with_iso_year(text, before_christ)
}

/// `2024-01-31 12:00:00.5` and the same with a zone, `+01` or `+05:30`.
pub fn timestamp(text: &str) -> String {
    let (text, before_christ) = before_christ(text);
    let Some((day, time)) = text.split_once(' ') else { return text.to_owned() };
    let mut iso = with_iso_year(day, before_christ);
    iso.push('T');
    push_time(&mut iso, time);
    iso
}

/// `12:00:00+01`.
pub fn time_tz(text: &str) -> String {
    let mut iso = String::with_capacity(text.len() + 3);
    push_time(&mut iso, text);
    iso
}

/// A time of day whose zone, if it has one, gets its minutes.
fn push_time(iso: &mut String, time: &str) {
    iso.push_str(time);
    if let Some(at) = time.rfind(['+', '-'])
        && time.len() - at == "+01".len()
    {
        iso.push_str(":00");
    }
}

fn before_christ(text: &str) -> (&str, bool) {
    text.strip_suffix(" BC").map_or((text, false), |text| (text, true))
}

/// The year before the year 1 is the year 0.
fn with_iso_year(day: &str, before_christ: bool) -> String {
    let Some((year, rest)) = day.split_once('-') else { return day.to_owned() };
    match year.parse::<i64>() {
        Ok(number) if before_christ => format!("{}-{rest}", signed(1 - number)),
        Ok(number) if number > 9999 => format!("{}-{rest}", signed(number)),
        _ => day.to_owned(),
    }
}

fn signed(year: i64) -> String {
    match year {
        0 => "0000".to_owned(),
        _ => format!("{}{:0SIGNED_YEAR_DIGITS$}", if year < 0 { '-' } else { '+' }, year.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_times() {
        assert_eq!(date("2024-01-31"), "2024-01-31");
        assert_eq!(timestamp("2024-01-31 12:00:00.5"), "2024-01-31T12:00:00.5");
        assert_eq!(timestamp("2024-01-31 12:00:00+00"), "2024-01-31T12:00:00+00:00");
        assert_eq!(timestamp("2024-01-31 12:00:00-03:30"), "2024-01-31T12:00:00-03:30");
        assert_eq!(timestamp("1890-01-31 12:00:00+00:53:28"), "1890-01-31T12:00:00+00:53:28");
        assert_eq!(time_tz("12:00:00+01"), "12:00:00+01:00");
    }

    #[test]
    fn times_far_away() {
        assert_eq!(date("infinity"), "infinity");
        assert_eq!(timestamp("-infinity"), "-infinity");
        assert_eq!(date("12024-01-31"), "+012024-01-31");
        assert_eq!(date("0001-12-31 BC"), "0000-12-31");
        assert_eq!(timestamp("0044-03-15 12:00:00+00 BC"), "-000043-03-15T12:00:00+00:00");
    }
}
