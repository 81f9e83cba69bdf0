//! The hosts of a receiver on a terminal, kept up to date.
//!
//! ```text
//! feed (asks the receiver) --News--+
//!                                  v
//! keys (a thread) ----------> TopState --> draw --> Screen
//! ```
//!
//! What can be decided is in `TopState`, without a terminal, a clock or a receiver. An error of the
//! receiver is shown, and the feed tries again.

mod draw;
mod feed;
mod state;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crossterm::event::{self, Event, KeyEventKind};
use tokio::sync::{mpsc, watch};

use self::state::Reaction;
pub(crate) use self::state::TopState;
use crate::context::Context;
use crate::loopback::{Session, Upstream};
use crate::output::screen::Screen;

/// How often it is looked whether the program still wants keys.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Keys and news that wait to be drawn.
const WAITING_MAX: usize = 64;
/// How often the ages on the screen are brought up to date.
const REDRAW_EVERY: Duration = Duration::from_secs(1);

/// Shows the hosts until the user ends it. `session` makes addresses of the page, if there is one.
#[expect(clippy::disallowed_methods, reason = "paces redrawing")]
pub(crate) async fn run(
    mut state: TopState,
    upstream: Arc<Upstream>,
    session: Option<Arc<Session>>,
    context: &Context,
) -> anyhow::Result<()> {
    let mut screen = Screen::enter()?;
    let begun_with = state.view_of();
    let (watched, watching) = watch::channel(begun_with);
    let (tell, mut news) = mpsc::channel(WAITING_MAX);
    let (typed, mut keys) = mpsc::channel(WAITING_MAX);
    std::thread::spawn(move || read_keys(&typed));
    let feed = feed::run(
        &upstream,
        (watching, state.wanted.clone()),
        tell,
        context.stopwatch,
    );
    let (mut feed, mut renewal) = (pin!(feed), pin!(upstream.keep_current()));
    loop {
        state.tick((context.clock)(), screen.log());
        screen.draw(|frame| draw::draw(&state, frame))?;
        let reaction = tokio::select! {
            event = keys.recv() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => state.key(key),
                // It is drawn again, in the new size.
                Some(Ok(_)) => Reaction::None,
                Some(Err(error)) => return Err(error.into()),
                None => Reaction::Quit,
            },
            Some(news) = news.recv() => {
                state.update(news);
                Reaction::None
            }
            () = tokio::time::sleep(REDRAW_EVERY) => Reaction::None,
            () = &mut feed => Reaction::None,
            () = &mut renewal => Reaction::None,
        };
        match reaction {
            Reaction::None => (),
            Reaction::Quit => return Ok(()),
            Reaction::Watch(host) => {
                watched.send_replace(host);
            }
            Reaction::NewAddress => {
                if let Some(session) = &session {
                    state.set_address(session.url((context.clock)()));
                }
            }
        }
    }
}

/// Until nobody listens any more, or the terminal is gone.
fn read_keys(typed: &mpsc::Sender<io::Result<Event>>) {
    while !typed.is_closed() {
        let event = match event::poll(LOOK_EVERY) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        let is_last = event.is_err();
        if typed.blocking_send(event).is_err() || is_last {
            return;
        }
    }
}
