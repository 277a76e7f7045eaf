//! The one way to standard output and standard error: these stand in front of the standard library's macros of the
//! same names, and text from files, chain and network passes [`cohort_protocol::text::printable`].

macro_rules! println {
    () => { std::println!() };
    ($($part:tt)*) => { std::println!("{}", $crate::terminal::shown(format_args!($($part)*))) };
}

macro_rules! print {
    ($($part:tt)*) => { std::print!("{}", $crate::terminal::shown(format_args!($($part)*))) };
}

macro_rules! eprintln {
    () => { std::eprintln!() };
    ($($part:tt)*) => { std::eprintln!("{}", $crate::terminal::shown(format_args!($($part)*))) };
}

macro_rules! eprint {
    ($($part:tt)*) => { std::eprint!("{}", $crate::terminal::shown(format_args!($($part)*))) };
}

pub(crate) fn shown(text: std::fmt::Arguments<'_>) -> String {
    cohort_protocol::text::printable(&text.to_string()).into_owned()
}
