//! Logs a message once for as long as it stays the same.

/// Suppresses repeated messages: each is logged once for as long as it stays the same.
#[derive(Debug, Default)]
pub struct LogOnce(String);

impl LogOnce {
    /// Calls `say` if the text is new.
    pub fn about(&mut self, text: String, say: impl FnOnce(&str)) {
        if self.0 != text {
            say(&text);
            self.0 = text;
        }
    }

    /// Clears the message. Returns whether there was one.
    pub fn clear(&mut self) -> bool {
        !std::mem::take(&mut self.0).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_logged_once() {
        let mut log_once = LogOnce::default();
        let mut said = Vec::new();
        for text in ["away", "away", "gone"] {
            log_once.about(text.to_owned(), |text| said.push(text.to_owned()));
        }
        assert_eq!(said, ["away", "gone"]);
        assert!(log_once.clear());
        assert!(!log_once.clear());
    }
}
