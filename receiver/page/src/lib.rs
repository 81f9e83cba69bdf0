//! The web page: HTML and SVG of what the receiver knows.
