//! One readiness request over one fresh connection, without blocking. The connection is given up
//! long before TCP would retransmit a lost SYN after a second (RFC 6298 §2.1), so that no attempt
//! ever waits for the protocol instead of the workload.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use compare_spec::{HttpReady, Readiness};
use nix::{
    errno::Errno,
    poll::PollFlags,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, connect, getsockopt, recv, send,
        setsockopt, socket, sockopt,
    },
};

/// How long a connection may take to be established.
const CONNECT: Duration = Duration::from_millis(50);
/// How long an answer may take once connected.
const ANSWER: Duration = Duration::from_secs(2);
/// The most of an answer that is looked at.
const ANSWER_BYTES: usize = 1 << 20;

/// What an attempt has come to.
#[derive(Debug)]
pub enum Progress {
    /// Wait for its descriptor or its deadline.
    Pending,
    /// The expected answer; the text says what was seen.
    Ready(String),
    /// Refused, cut off, or answered otherwise: try anew.
    Failed(String),
}

/// A connection attempt and, for HTTP, its request and answer.
#[derive(Debug)]
pub struct Attempt {
    socket: OwnedFd,
    /// When to give up, nanoseconds of the monotonic clock.
    pub deadline_ns: u64,
    connected: bool,
    answer: Vec<u8>,
}

impl Attempt {
    /// Begins to connect. A socket that was refused is left in `spare` for the next attempt: on Linux
    /// it is as good as new once connect(2) has told so.
    ///
    /// # Errors
    /// The kernel refuses a socket, or the connection at once.
    pub fn connect(
        address: Ipv4Addr,
        port: u16,
        now_ns: u64,
        spare: &mut Option<OwnedFd>,
    ) -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = match spare.take() {
            Some(socket) => socket,
            None => socket(AddressFamily::Inet, SockType::Stream, flags, None)?,
        };
        let [a, b, c, d] = address.octets();
        let to = SockaddrIn::new(a, b, c, d, port);
        match connect(socket.as_raw_fd(), &to) {
            Ok(()) => {}
            // On one machine a refusal is there by now, and most attempts are refused.
            Err(Errno::EINPROGRESS) => match connect(socket.as_raw_fd(), &to) {
                Ok(()) | Err(Errno::EALREADY) => {}
                Err(error) => {
                    *spare = Some(socket);
                    return Err(error.into());
                }
            },
            Err(error) => return Err(error.into()),
        }
        let deadline_ns = now_ns + CONNECT.as_nanos() as u64;
        Ok(Self { socket, deadline_ns, connected: false, answer: Vec::new() })
    }

    /// The descriptor to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What to poll it for.
    pub fn interest(&self) -> PollFlags {
        if self.connected { PollFlags::POLLIN } else { PollFlags::POLLOUT }
    }

    /// Goes on after the descriptor became ready.
    pub fn advance(&mut self, ready: &Readiness, address: Ipv4Addr, now_ns: u64) -> Progress {
        if !self.connected {
            match getsockopt(&self.socket, sockopt::SocketError) {
                Ok(0) => self.connected = true,
                Ok(error) => {
                    return Progress::Failed(format!("connect: {}", Errno::from_raw(error).desc()));
                }
                Err(error) => return Progress::Failed(format!("connect: {}", error.desc())),
            }
            // A reset on close leaves no TIME_WAIT state that later trials would carry along.
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            if let Err(error) = setsockopt(&self.socket, sockopt::Linger, &linger) {
                return Progress::Failed(format!("setsockopt: {}", error.desc()));
            }
            let Readiness::Http(http) = ready else {
                return Progress::Ready(format!("{address} accepted a TCP connection"));
            };
            self.deadline_ns = now_ns + ANSWER.as_nanos() as u64;
            let request = format!(
                "GET {} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: compare\r\nConnection: close\r\n\r\n",
                http.path
            );
            return match send(self.socket.as_raw_fd(), request.as_bytes(), MsgFlags::MSG_NOSIGNAL) {
                Ok(count) if count == request.len() => Progress::Pending,
                Ok(_) => Progress::Failed("the request was cut short".to_owned()),
                Err(error) => Progress::Failed(format!("send: {}", error.desc())),
            };
        }
        let Readiness::Http(http) = ready else {
            return Progress::Failed("no answer was asked for".to_owned());
        };
        let mut buffer = [0; 16 << 10];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(0) => return judge(&self.answer, http, true),
                Ok(count) => self.answer.extend_from_slice(&buffer[..count]),
                Err(Errno::EAGAIN) => {
                    return judge(&self.answer, http, self.answer.len() >= ANSWER_BYTES);
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Progress::Failed(format!("receive: {}", error.desc())),
            }
            if self.answer.len() >= ANSWER_BYTES {
                return judge(&self.answer, http, true);
            }
        }
    }
}

/// Whether what has come of an answer so far is what the workload promised (RFC 9112 §4 for the
/// status line). `complete`: nothing more will come.
fn judge(answer: &[u8], http: &HttpReady, complete: bool) -> Progress {
    let end = |text: String| if complete { Progress::Failed(text) } else { Progress::Pending };
    let Some(line_end) = answer.windows(2).position(|pair| pair == b"\r\n") else {
        return end("no HTTP status line".to_owned());
    };
    let line = String::from_utf8_lossy(&answer[..line_end]).into_owned();
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|status| status.parse::<u16>().ok());
    if status != Some(http.status) {
        return Progress::Failed(format!("answered `{line}`, not status {}", http.status));
    }
    let Some(head_end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return end("HTTP headers without an end".to_owned());
    };
    let body = &answer[head_end + 4..];
    match &http.body {
        None => Progress::Ready(line),
        Some(text)
            if text.is_empty() || body.windows(text.len()).any(|part| part == text.as_bytes()) =>
        {
            Progress::Ready(format!("{line}, body contains `{text}`"))
        }
        Some(text) => end(format!("answered `{line}`, but the body does not contain `{text}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(body: Option<&str>) -> HttpReady {
        HttpReady { path: "/".into(), status: 200, body: body.map(str::to_owned) }
    }

    #[test]
    fn an_answer_is_judged_as_it_arrives() {
        let answer = b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nWelcome to nginx!";
        let want = http(Some("Welcome"));
        for cut in 0..answer.len() - 10 {
            assert!(matches!(judge(&answer[..cut], &want, false), Progress::Pending), "{cut}");
        }
        let Progress::Ready(seen) = judge(answer, &want, false) else { panic!("not ready") };
        assert_eq!(seen, "HTTP/1.1 200 OK, body contains `Welcome`");
        assert!(matches!(judge(answer, &http(None), false), Progress::Ready(_)));
    }

    #[test]
    fn wrong_answers_say_what_was_wrong() {
        let failed = |answer: &[u8], want: &HttpReady| match judge(answer, want, true) {
            Progress::Failed(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(failed(b"HTTP/1.1 404 Not Found\r\n\r\n", &http(None)).contains("404"));
        assert!(failed(b"SSH-2.0-OpenSSH\r\n", &http(None)).contains("SSH"));
        assert!(
            failed(b"HTTP/1.1 200 OK\r\n\r\nother", &http(Some("Welcome")))
                .contains("does not contain")
        );
        assert!(failed(b"", &http(None)).contains("status line"));
    }
}
