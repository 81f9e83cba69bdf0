//! How many fields a message has, before it is decoded.
//!
//! prost bounds how deep messages are nested and checks every length, but not how many fields there
//! are: an empty message of two bytes takes 96 in a `Vec`. So the fields are counted first, on all
//! levels, without memory.

/// So deep messages are nested at most, as prost has it.
const NESTED_MAX: usize = 100;

/// Which fields of a message are messages, by number, and what those have. All others are skipped.
#[derive(Debug, Clone, Copy)]
pub struct MessageShape(pub &'static [(u32, &'static MessageShape)]);

impl MessageShape {
    fn of_field(&self, number: u32) -> Option<&'static Self> {
        let mut fields = self.0.iter();
        fields
            .find(|(of, _)| *of == number)
            .map(|(_, shape)| *shape)
    }
}

/// A message that has others in it.
pub trait Nested {
    /// Which.
    const SHAPE: MessageShape;
}

/// Why a message is refused before it is decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It is no protobuf.
    #[error("the message is not protobuf: {0}")]
    Malformed(&'static str),
    /// It has too many fields.
    #[error("the message has more than {fields_max} fields")]
    TooManyFields {
        /// How many it may have.
        fields_max: usize,
    },
}

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number.
    pub number: u32,
    /// The bytes of a text or a message; none of a number.
    pub bytes: Option<&'a [u8]>,
}

/// Whether a message has at most so many fields, on all levels.
pub fn check<M: Nested>(message: &[u8], fields_max: usize) -> Result<(), WireError> {
    let mut left = fields_max;
    count(message, &M::SHAPE, &mut left, NESTED_MAX).map_err(|error| match error {
        WireError::TooManyFields { .. } => WireError::TooManyFields { fields_max },
        error => error,
    })
}

/// A shape that has itself in it has no end: `nested_max` is one.
fn count(
    message: &[u8],
    shape: &MessageShape,
    left: &mut usize,
    nested_max: usize,
) -> Result<(), WireError> {
    let too_deep = WireError::Malformed("messages are nested too deeply");
    let nested_max = nested_max.checked_sub(1).ok_or(too_deep)?;
    for field in fields(message) {
        let Field { number, bytes } = field?;
        *left = left
            .checked_sub(1)
            .ok_or(WireError::TooManyFields { fields_max: 0 })?;
        if let (Some(bytes), Some(shape)) = (bytes, shape.of_field(number)) {
            count(bytes, shape, left, nested_max)?;
        }
    }
    Ok(())
}

/// The fields of a message one by one, to the first error.
pub fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>, WireError>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next_field(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>, WireError> {
    let key =
        u32::try_from(varint(rest)?).map_err(|_| WireError::Malformed("a key is too large"))?;
    let number = key >> 3;
    if number == 0 {
        return Err(WireError::Malformed("a field has the number 0"));
    }
    let bytes = match key & 7 {
        0 => {
            varint(rest)?;
            None
        }
        1 => {
            take(rest, 8)?;
            None
        }
        2 => {
            let length = varint(rest)?;
            Some(take(rest, length)?)
        }
        5 => {
            take(rest, 4)?;
            None
        }
        3 | 4 => return Err(WireError::Malformed("groups are not taken")),
        _ => return Err(WireError::Malformed("a field has an unknown type")),
    };
    Ok(Field { number, bytes })
}

fn varint(rest: &mut &[u8]) -> Result<usize, WireError> {
    let varint = prost::decode_length_delimiter(rest);
    varint.map_err(|_| WireError::Malformed("a number has no end, or is too large"))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], WireError> {
    let past_end = WireError::Malformed("a field is longer than what is left");
    let (taken, left) = rest.split_at_checked(length).ok_or(past_end)?;
    *rest = left;
    Ok(taken)
}
