//! Reads the host of an HTTP/1 request as far as it has arrived (RFC 9112).

/// What the start of a request says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The host asked for, lower case, without port and brackets.
    pub host: Option<String>,
    /// Whether this asks a proxy, which is told the host in the target.
    pub is_proxied: bool,
    /// Whether this asks a proxy for a tunnel.
    pub is_tunnel: bool,
    /// Whether all header fields were there.
    pub complete: bool,
}

/// Whether a payload begins as a request does.
pub(super) fn begins_request(payload: &[u8]) -> bool {
    METHODS.iter().any(|method| payload.starts_with(method))
}

/// Whether a payload begins as HTTP/1 or the preface of HTTP/2 does, whoever sent it.
pub(super) fn begins(payload: &[u8]) -> bool {
    payload.starts_with(b"HTTP/1.") || payload.starts_with(b"PRI * HTTP/2") || begins_request(payload)
}

/// Reads the first request in `bytes`.
pub fn read_request(bytes: &[u8]) -> Option<Request> {
    if !begins_request(bytes) {
        return None;
    }
    let mut lines = bytes.split_inclusive(|octet| *octet == b'\n');
    let line = lines.next()?;
    let mut words = line.split(|octet| octet.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let method = words.next()?;
    let target = words.next().unwrap_or_default();
    let mut request = Request { is_tunnel: method == b"CONNECT", ..Request::default() };
    // The whole address in the target counts more than the field (RFC 9112, section 3.2.2).
    if line.ends_with(b"\n") {
        request.host = if request.is_tunnel { host(target) } else { host_of_url(target) };
        request.is_proxied = request.host.is_some();
    }
    for line in lines {
        let Some(field) = line.strip_suffix(b"\n") else { return Some(request) };
        let field = field.trim_ascii();
        if field.is_empty() {
            request.complete = true;
            return Some(request);
        }
        if request.host.is_none()
            && let Some((name, value)) = field.split_at_checked(5)
            && name.eq_ignore_ascii_case(b"host:")
        {
            request.host = host(value.trim_ascii());
        }
    }
    Some(request)
}

fn host_of_url(target: &[u8]) -> Option<String> {
    let rest = target.strip_prefix(b"http://").or(target.strip_prefix(b"https://"))?;
    let authority = rest.split(|octet| matches!(octet, b'/' | b'?' | b'#')).next()?;
    host(authority.rsplit(|octet| *octet == b'@').next()?)
}

/// A host without its port and brackets; `None` for what could not be shown.
fn host(authority: &[u8]) -> Option<String> {
    let host = match authority.strip_prefix(b"[") {
        Some(v6) => v6.split(|octet| *octet == b']').next()?,
        None => authority.split(|octet| *octet == b':').next()?,
    };
    let host = host.strip_suffix(b".").unwrap_or(host);
    let plain = !host.is_empty() && host.len() <= MAX_NAME && host.iter().all(u8::is_ascii_graphic);
    plain.then(|| host.iter().map(|octet| char::from(octet.to_ascii_lowercase())).collect())
}

const METHODS: &[&[u8]] = &[
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"CONNECT ",
    b"OPTIONS ",
    b"DELETE ",
    b"PATCH ",
    b"PROPFIND ",
    b"MKCOL ",
    b"TRACE ",
    b"REPORT ",
    b"LOCK ",
    b"MOVE ",
    b"COPY ",
];

/// The longest domain name.
const MAX_NAME: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn host_in(text: &str) -> Option<String> {
        read_request(text.as_bytes()).and_then(|request| request.host)
    }

    #[test]
    fn the_host_is_read_in_all_its_forms() {
        assert_eq!(
            host_in("GET / HTTP/1.1\r\nX: y\r\nhOsT:  WWW.Example.com:8080\r\n").as_deref(),
            Some("www.example.com")
        );
        assert_eq!(
            host_in("GET http://u@a.example:80/x HTTP/1.1\r\nHost: b.example\r\n\r\n").as_deref(),
            Some("a.example")
        );
        assert_eq!(host_in("POST /x HTTP/1.1\nHost: [2001:db8::1]:80\n\n").as_deref(), Some("2001:db8::1"));
        let tunnel = read_request(b"CONNECT up.example:443 HTTP/1.1\r\nHost: proxy\r\n\r\n").unwrap();
        assert_eq!(
            tunnel,
            Request { host: Some("up.example".into()), is_proxied: true, is_tunnel: true, complete: true }
        );
    }

    #[test]
    fn half_a_name_is_no_name() {
        assert_eq!(host_in("GET / HTTP/1.1\r\nHost: www.exam"), None);
        assert_eq!(host_in("GET http://a.exam"), None);
        assert_eq!(host_in("GET / HTTP/1.1\r\n\r\nHost: in.body\r\n"), None);
        assert_eq!(host_in("GET / HTTP/1.1\r\nHost: \u{1b}[2J\r\n"), None);
        assert_eq!(read_request(b"SSH-2.0-x\r\n"), None);
    }
}
