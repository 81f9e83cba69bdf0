//! Templates: the operator's text, with hostile text put into it.

use std::fmt::Write as _;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context};

/// A summary, if the rule has none.
pub const DEFAULT_SUMMARY: &str =
    "{{ host }}: {{ rule }}{% if label %} ({{ label }}){% endif %}, {{ value }}";
/// The subject of a mail.
pub const DEFAULT_SUBJECT: &str = "[{{ 'RESOLVED' if state == 'resolved' else severity | upper }}] \
    {{ host }}: {{ rule }}{% if label %} ({{ label }}){% endif %}";
/// The text of a mail.
pub const DEFAULT_BODY: &str = "\
{{ summary }}
{% if description %}
{{ description }}
{% endif %}
host      {{ host }}
rule      {{ rule }} ({{ severity }})
{% if label %}label     {{ label }}
{% endif %}value     {{ value }}
state     {{ state }}{% if reason %}: {{ reason }}{% endif %}

since     {{ since }}
{{ 'ended' if state == 'resolved' else 'fired' }}     {{ at }}
{% if flapping %}
This alarm is flapping: it has fired {{ flapping }} times in a short while. So its all-clear comes
only after it has been quiet for {{ quiet }}.
{% endif %}
{{ id }}
";

/// Largest result of a template.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// How much work a template may do.
const FUEL: u64 = 20_000;
/// Whether this is a template: its syntax, and what it makes of an example.
pub fn check(template: &str) -> Result<(), Error> {
    let example = context! {
        host => "host",
        rule => "rule",
        label => "label",
        severity => "warning",
        state => "firing",
        value => 1.0,
        since => "2016-06-04T00:56:54Z",
        at => "2016-06-04T00:56:54Z",
        reason => "",
        id => "0",
        alarm => "0",
        summary => "",
        description => "",
        flapping => 0,
        quiet => "30m",
    };
    render(template, example).map(|_| ())
}

/// Nothing that is not in the template's own text is loaded: there is no loader.
pub(crate) fn render(template: &str, context: Value) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder().trim_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.add_filter("days", |secs: f64| (secs / 86_400.0 * 10.0).round() / 10.0);
    let mut text = Limited(Vec::new());
    let template = environment.template_from_str(template)?;
    template.render_captured_to(context, &mut text)?;
    String::from_utf8(text.0).map_err(|_| Error::new(ErrorKind::BadSerialization, "not UTF-8"))
}

/// A text that grows no larger than [`TEXT_BYTES_MAX`].
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > TEXT_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// With at most two decimals; whole numbers without.
pub(crate) fn number(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

pub(crate) fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(500).collect()
}

/// Text that a reader sees as it is: what would change how the text around it is shown, or would
/// not be shown, is written as an escape.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match is_invisible(char) {
            true => {
                let _infallible = write!(shown, "\\u{{{:x}}}", char as u32);
            }
            false => shown.push(char),
        }
    }
    shown
}

/// Control characters, those that set the direction of text, and those of no width.
fn is_invisible(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
