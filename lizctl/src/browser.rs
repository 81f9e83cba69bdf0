//! Starts the user's browser.

/// Why no browser was started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrowserError {
    /// What would be started is a browser in this terminal, if anything.
    #[error("there is no display for a browser")]
    NoDisplay,
    #[error("no browser could be started ({0})")]
    Failed(#[from] opener::OpenError),
}

/// Starts it, and does not wait for it.
pub(crate) fn start(url: &str) -> Result<(), BrowserError> {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let displays = ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "WSL_DISTRO_NAME"];
    if cfg!(target_os = "linux") && !displays.into_iter().any(is_set) {
        return Err(BrowserError::NoDisplay);
    }
    Ok(opener::open_browser(url)?)
}
