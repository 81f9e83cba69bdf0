//! The files beside the pages: the same for everybody, and part of the program.

/// A file that pages link to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageAsset {
    /// Its name below `assets/`.
    pub name: &'static str,
    /// Its `Content-Type`.
    pub media_type: &'static str,
    /// Its contents.
    pub text: &'static str,
}

/// The style sheet.
pub const STYLE: PageAsset = PageAsset {
    name: "page.css",
    media_type: "text/css; charset=utf-8",
    text: include_str!("assets/page.css"),
};

/// The script, an ES module.
pub const SCRIPT: PageAsset = PageAsset {
    name: "page.js",
    media_type: "text/javascript; charset=utf-8",
    text: include_str!("assets/page.js"),
};

/// The icon.
pub const ICON: PageAsset = PageAsset {
    name: "icon.svg",
    media_type: "image/svg+xml",
    text: include_str!("assets/icon.svg"),
};

/// All of them.
pub const ASSETS: [PageAsset; 3] = [STYLE, SCRIPT, ICON];

/// The asset of this name.
pub fn find(name: &str) -> Option<PageAsset> {
    ASSETS.into_iter().find(|asset| asset.name == name)
}
