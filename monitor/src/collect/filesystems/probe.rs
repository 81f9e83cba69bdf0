//! Asks file systems on a thread of their own, and gives up on one that does not answer.
//!
//! statvfs(3) of a mount whose server is away may never return, and cannot be interrupted. The
//! thread that waits for it is left to itself and another one goes on with the other mounts; that
//! mount is not asked again until the thread has returned.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

/// A mount that takes longer than this hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// So many threads may wait for mounts that hang. If there are more, none is asked any more.
const THREADS_MAX: usize = 16;

/// What a file system said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DiskUsage {
    blocks: u64,
    blocks_free: u64,
    /// For those who are not root.
    blocks_available: u64,
    inodes: u64,
    inodes_free: u64,
}

impl DiskUsage {
    /// As df(1) computes it. `None` of a file system without blocks.
    pub(super) fn used_percent(&self) -> Option<f64> {
        let used = self.blocks.saturating_sub(self.blocks_free);
        // Some report less than nothing where root has used the reserve.
        let available = self.blocks_available.min(self.blocks_free);
        percent(used, used.saturating_add(available))
    }

    pub(super) fn inodes_percent(&self) -> Option<f64> {
        percent(self.inodes.saturating_sub(self.inodes_free), self.inodes)
    }
}

fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64 * 100.0)
}

/// What is known of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// This.
    Usage(DiskUsage),
    /// It does not answer.
    Hangs,
    /// It answers with an error.
    Failed(io::ErrorKind),
    /// Nothing yet, or it is the mount of a file.
    NotAsked,
}

/// `None` where a file is mounted: those are a container's, and show the disk of its host.
pub(super) type Ask = dyn Fn(&Path) -> io::Result<Option<DiskUsage>> + Send + Sync;

/// Asks the system.
pub(super) fn ask(point: &Path) -> io::Result<Option<DiskUsage>> {
    if !point.metadata()?.is_dir() {
        return Ok(None);
    }
    let vfs = rustix::fs::statvfs(point)?;
    Ok(Some(DiskUsage {
        blocks: vfs.f_blocks,
        blocks_free: vfs.f_bfree,
        blocks_available: vfs.f_bavail,
        inodes: vfs.f_files,
        inodes_free: vfs.f_ffree,
    }))
}

/// Asks, and knows the last answers.
pub(super) struct Probe {
    shared: Arc<Shared>,
    ask: Arc<Ask>,
}

struct Shared {
    state: Mutex<State>,
    /// There is something to ask, or an answer, or it ends.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The thread that may take from the queue. Earlier ones were left to themselves.
    thread: u64,
    queue: VecDeque<Vec<u8>>,
    /// What the thread asks now, and since when.
    current: Option<(Vec<u8>, Duration)>,
    /// The time of the last call of [`Probe::ask`].
    now: Duration,
    answers: HashMap<Vec<u8>, (io::Result<Option<DiskUsage>>, Duration)>,
    hanging: HashSet<Vec<u8>>,
    has_ended: bool,
}

impl Probe {
    pub(super) fn start(ask: Arc<Ask>) -> io::Result<Self> {
        let probe = Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
            ask,
        };
        probe.start_thread(0)?;
        Ok(probe)
    }

    /// Asks these, but for those that hang, and waits for the answers for a short time. If the last
    /// ones have not all answered yet, it asks none.
    pub(super) fn ask(&mut self, points: Vec<Vec<u8>>, now: Duration, patience: Duration) {
        let mut state = self.shared.lock();
        state.now = now;
        let is_late =
            |(_, since): &(Vec<u8>, Duration)| now.saturating_sub(*since) >= ANSWER_WITHIN;
        if let Some((late, _)) = state.current.take_if(|current| is_late(current)) {
            state.hanging.insert(late);
            state.thread += 1;
            if state.hanging.len() < THREADS_MAX {
                // Without a thread the answers grow old, and so are not published.
                let _not_started = self.start_thread(state.thread);
            }
        }
        if state.current.is_none() {
            let hanging = std::mem::take(&mut state.hanging);
            state.answers.retain(|point, _| points.contains(point));
            let asked = points.into_iter().filter(|point| !hanging.contains(point));
            state.queue = asked.collect();
            state.hanging = hanging;
        }
        self.shared.changed.notify_all();
        let is_open = |state: &mut State| !state.queue.is_empty() || state.current.is_some();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, patience, is_open);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// What is known of this mount, if it is not older than that.
    pub(super) fn answer(&self, point: &[u8], now: Duration, age_max: Duration) -> Answer {
        let state = self.shared.lock();
        if state.hanging.contains(point) {
            return Answer::Hangs;
        }
        match state.answers.get(point) {
            Some((_, at)) if now.saturating_sub(*at) > age_max => Answer::Hangs,
            Some((Ok(Some(usage)), _)) => Answer::Usage(*usage),
            Some((Err(error), _)) => Answer::Failed(error.kind()),
            // There is no thread left to ask.
            None if state.hanging.len() >= THREADS_MAX => Answer::Hangs,
            Some((Ok(None), _)) | None => Answer::NotAsked,
        }
    }

    fn start_thread(&self, thread: u64) -> io::Result<()> {
        let (shared, ask) = (self.shared.clone(), self.ask.clone());
        let spawned = Builder::new()
            .name("filesystems".to_owned())
            .spawn(move || shared.run(thread, &*ask));
        spawned.map(drop)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.lock().has_ended = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, thread: u64, ask: &Ask) {
        let mut state = self.lock();
        loop {
            let is_idle = |state: &mut State| {
                !state.has_ended && state.thread == thread && state.queue.is_empty()
            };
            let waited = self.changed.wait_while(state, is_idle);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            if state.has_ended || state.thread != thread {
                return;
            }
            let Some(point) = state.queue.pop_front() else {
                continue;
            };
            state.current = Some((point.clone(), state.now));
            drop(state);
            let answer = ask(Path::new(OsStr::from_bytes(&point)));
            state = self.lock();
            let now = state.now;
            if state.thread != thread {
                // It was given up. The mount may be asked again.
                state.hanging.remove(&point);
                return;
            }
            state.answers.insert(point, (answer, now));
            state.current = None;
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    const AGE_MAX: Duration = Duration::from_secs(30);
    /// Far more than an answer takes: a wait ends with the answers.
    const PATIENCE: Duration = Duration::from_secs(20);
    const NONE: Duration = Duration::ZERO;

    const HALF: DiskUsage = DiskUsage {
        blocks: 100,
        blocks_free: 50,
        blocks_available: 50,
        inodes: 0,
        inodes_free: 0,
    };

    /// Asks mounts of which `/hung` answers when it is told to.
    fn probe() -> (Probe, Sender<()>) {
        let (release, hung) = channel();
        let hung = Mutex::new(hung);
        let ask = move |point: &Path| {
            match point.to_str() {
                Some("/hung") => hung.lock().unwrap().recv().unwrap(),
                Some("/gone") => return Err(io::ErrorKind::NotFound.into()),
                Some("/file") => return Ok(None),
                _ => (),
            }
            Ok(Some(HALF))
        };
        (Probe::start(Arc::new(ask)).unwrap(), release)
    }

    fn points(points: &[&str]) -> Vec<Vec<u8>> {
        points
            .iter()
            .map(|point| point.as_bytes().to_vec())
            .collect()
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn one_that_hangs_stops_no_other() {
        let (mut probe, release) = probe();
        let all = points(&["/a", "/hung", "/b", "/gone", "/file"]);
        let answer =
            |probe: &Probe, point: &str, at| probe.answer(point.as_bytes(), secs(at), AGE_MAX);
        probe.ask(all.clone(), secs(10), NONE);
        // It is not noticed yet.
        probe.ask(all.clone(), secs(11), NONE);
        // The thread may not have come to it in that time: wait until it has.
        while probe
            .shared
            .lock()
            .current
            .as_ref()
            .is_none_or(|(point, _)| point != b"/hung")
        {
            std::thread::yield_now();
        }
        let since = probe.shared.lock().current.as_ref().unwrap().1;
        let at = since.as_secs() + ANSWER_WITHIN.as_secs();
        probe.ask(all.clone(), secs(at), PATIENCE);
        let expected = [
            ("/a", Answer::Usage(HALF)),
            ("/hung", Answer::Hangs),
            ("/b", Answer::Usage(HALF)),
            ("/gone", Answer::Failed(io::ErrorKind::NotFound)),
            ("/file", Answer::NotAsked),
            ("/other", Answer::NotAsked),
        ];
        for (point, expected) in expected {
            assert_eq!(answer(&probe, point, at), expected, "{point}");
        }
        // It is not asked again, and nobody waits for it.
        probe.ask(all.clone(), secs(at + 5), PATIENCE);
        assert_eq!(answer(&probe, "/hung", at + 5), Answer::Hangs);
        release.send(()).unwrap();
        while probe.shared.lock().hanging.contains(&b"/hung"[..]) {
            std::thread::yield_now();
        }
        release.send(()).unwrap();
        probe.ask(all, secs(at + 10), PATIENCE);
        assert_eq!(answer(&probe, "/hung", at + 10), Answer::Usage(HALF));
        // An answer that is too old is none, and one that is unmounted is forgotten.
        assert_eq!(answer(&probe, "/a", at + 41), Answer::Hangs);
        probe.ask(points(&["/b"]), secs(at + 15), PATIENCE);
        assert_eq!(answer(&probe, "/a", at + 15), Answer::NotAsked);
    }

    #[test]
    fn as_df_shows_it() {
        let usage = |blocks, blocks_free, blocks_available, inodes, inodes_free| DiskUsage {
            blocks,
            blocks_free,
            blocks_available,
            inodes,
            inodes_free,
        };
        let cases = [
            (usage(100, 50, 50, 10, 9), Some(50.0), Some(10.0)),
            // A reserve for root.
            (usage(100, 20, 0, 10, 0), Some(100.0), Some(100.0)),
            (usage(100, 50, 30, 0, 0), Some(50.0 / 80.0 * 100.0), None),
            // Less than nothing is available: root has used the reserve.
            (usage(100, 0, u64::MAX, 0, 0), Some(100.0), None),
            (usage(0, 0, 0, 0, 0), None, None),
            (usage(100, 200, 200, 10, 20), Some(0.0), Some(0.0)),
        ];
        for (usage, used, inodes) in cases {
            assert_eq!(
                (usage.used_percent(), usage.inodes_percent()),
                (used, inodes),
                "{usage:?}"
            );
        }
    }

    #[test]
    fn the_system_answers() {
        let usage = ask(Path::new("/")).unwrap().unwrap();
        let used = usage.used_percent().unwrap();
        assert!((0.0..=100.0).contains(&used), "{usage:?}");
        assert_eq!(ask(Path::new("/proc/self/stat")).unwrap(), None);
        assert!(ask(Path::new("/nowhere")).is_err());
    }
}
