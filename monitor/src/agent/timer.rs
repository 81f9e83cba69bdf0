//! A timer that wakes the process once.
//!
//! tokio sorts its timers into steps of 1, 64 and 4,096 ms, and wakes up where a step begins that has
//! one: half a second's wait is two or three wake-ups. The kernel's timer is one.

use std::time::Duration;

use tokio::time::sleep;

/// For one wait at a time.
#[derive(Debug)]
pub(super) struct Timer {
    #[cfg(target_os = "linux")]
    kernel: Option<kernel::KernelTimer>,
}

impl Timer {
    /// To be called in a runtime. Where the kernel has no timer for it, it is tokio's.
    pub(super) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            kernel: kernel::KernelTimer::new().ok(),
        }
    }

    /// Ends after this time. If it is dropped before, it may wake the process once more.
    #[expect(
        clippy::disallowed_methods,
        reason = "waits for as long as pure code has decided"
    )]
    pub(super) async fn wait(&mut self, time: Duration) {
        #[cfg(target_os = "linux")]
        if let Some(kernel) = &self.kernel
            && kernel.wait(time).await.is_ok()
        {
            return;
        }
        sleep(time).await;
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// Of `timerfd_create(2)`.
    #[derive(Debug)]
    pub(super) struct KernelTimer(AsyncFd<OwnedFd>);

    impl KernelTimer {
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe: it asks for what an OwnedFd keeps, that the descriptor stays open"
        )]
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            Ok(Self(AsyncFd::with_interest(timer, Interest::READABLE)?))
        }

        pub(super) async fn wait(&self, time: Duration) -> io::Result<()> {
            self.start(time)?;
            // An earlier wait that was dropped leaves the descriptor marked as readable: a read
            // shows that it is not.
            self.0
                .async_io(Interest::READABLE, |timer| {
                    Ok(rustix::io::read(timer, &mut [0; 8])?)
                })
                .await?;
            Ok(())
        }

        /// Instead of what it was started with before.
        fn start(&self, time: Duration) -> io::Result<()> {
            // Zero would stop it.
            let time = time.max(Duration::from_nanos(1));
            let once = Itimerspec {
                it_interval: Timespec::default(),
                it_value: Timespec::try_from(time).map_err(io::Error::other)?,
            };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            Ok(())
        }
    }

    #[cfg(test)]
    #[expect(clippy::disallowed_methods, reason = "what is tested is real time")]
    mod tests {
        use std::time::Instant;

        use super::*;

        const TIME: Duration = Duration::from_millis(30);

        /// One that was dropped has expired in the meantime, and does not end the next one.
        #[tokio::test]
        async fn an_earlier_wait_does_not_end_the_next() {
            let timer = KernelTimer::new().unwrap();
            timer.start(Duration::ZERO).unwrap();
            let mut expired = timer.0.readable().await.unwrap();
            expired.retain_ready();
            let began = Instant::now();
            timer.wait(TIME).await.unwrap();
            assert!(began.elapsed() >= TIME);
        }

        #[tokio::test]
        async fn one_timer_waits_again_and_again() {
            let timer = KernelTimer::new().unwrap();
            let began = Instant::now();
            for time in [TIME, Duration::ZERO, TIME] {
                timer.wait(time).await.unwrap();
            }
            assert!(began.elapsed() >= TIME * 2);
        }
    }
}
