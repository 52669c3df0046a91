---@meta penstock
-- Annotations for editors (LuaCATS): point lua-language-server's workspace.library at the directory of this file.
-- docs/lua-api.md is the manual.

---A destination: "host:port", "unix:/path", or a comma list of these, tried in order.
---@alias penstock.Address string

---A proxy on the way: "socks5://user:password@host:1080", "http://host:3128".
---A server of a pool that was given so may stand here, too.
---@alias penstock.Hop string | penstock.Server

---An address with options.
---TLS with an upstream. Chain and name are checked unless pin or insecure says otherwise.
---@class penstock.TlsDial
---@field ca? string file or folder of the authorities that are trusted; default: the system's
---@field name? string whom the certificate must be for; default: the destination's host
---@field pin? string | string[] SHA-256 fingerprints of certificates
---@field cert? string file of what is shown to an upstream that asks for a certificate
---@field key? string file of its key
---@field alpn? string | string[] protocols to offer, the best first
---@field min? "1.2" | "1.3" | number
---@field insecure? boolean take any certificate

---TLS with clients. Names of files in PEM.
---@class penstock.TlsAccept
---@field cert string the certificate, then what leads to its root
---@field key? string its key; default: in the same file
---@field sni? table<string | integer, { cert: string, key: string? }> more certificates, by the name that clients ask for
---@field client_ca? string authorities that clients' certificates come from
---@field client? "require" | "request"
---@field alpn? string | string[] protocols, the best first
---@field min? "1.2" | "1.3" | number

---A certificate with its key, for the sni hook.
---@class penstock.Certificate

---What a TLS connection has agreed on.
---@class penstock.Tls
---@field version string "TLSv1.3"
---@field cipher string "TLS_AES_128_GCM_SHA256"
---@field sni? string the server name asked for
---@field alpn? string the protocol chosen
---@field resumed boolean a session was resumed
---@field verified boolean the other side's certificate was asked for, is there, and has been checked
---@field peer? penstock.TlsPeer the other side's certificate

---@class penstock.TlsPeer
---@field subject string "CN=alice,O=lab"
---@field issuer string
---@field names string[] subject alternative names: "DNS:a.lab", "IP:192.0.2.1", "email:…", "URI:…"
---@field serial string hexadecimal
---@field fingerprint string SHA-256, 64 hexadecimal digits

---@class penstock.Target
---@field [1] penstock.Address | penstock.Server | penstock.Pool
---@field via? penstock.Hop | penstock.Hop[] proxies on the way, in the order in which they are reached
---@field tls? boolean | penstock.TlsDial TLS with the upstream
---@field via_tls? penstock.TlsDial of the proxies that are spoken with over TLS
---@field proxy? "v1" | "v2" begin with a header of the PROXY protocol
---@field tlv? penstock.Tlv options in the header of version 2, by type or name
---@field bind? string source address
---@field timeout? penstock.Time for this destination, within the whole

---Options of a PROXY header (version 2): bytes by type, 0 to 255; known types have names, too.
---@class penstock.Tlv
---@field [integer] string
---@field alpn? string
---@field authority? string the host name that the client asked for (SNI)
---@field crc32c? string | true to be sent: true, or anything: it is computed
---@field noop? string padding
---@field unique_id? string
---@field netns? string
---@field ssl? penstock.TlvSsl

---The option that tells of TLS between the client and the proxy. In conn.proxy.tlv a copy, made when it is read.
---@class penstock.TlvSsl
---@field [integer] string further options, by type
---@field client? integer bits: 1 TLS, 2 a client certificate over this connection, 4 over its session
---@field verify? integer 0: the client's certificate was verified, or there was none
---@field version? string "TLSv1.3"
---@field cn? string common name of the client's certificate
---@field cipher? string
---@field sig_alg? string of the server's certificate
---@field key_alg? string of the server's certificate
---@field group? string
---@field sig_scheme? string
---@field client_cert? string in DER

---An end of a connection, as a PROXY header tells it.
---@class penstock.ProxyEnd
---@field ip string "10.0.0.1", "2001:db8::1", or "unix"
---@field port integer? absent for a UNIX socket
---@field path string? of a UNIX socket, "@name" where abstract

---What the PROXY header of a connection has told; the client is in conn.client.
---@class penstock.Proxy
---@field version 1 | 2
---@field ip string who sent the header: the proxy's address, or "unix"
---@field port integer? absent for a UNIX socket
---@field told boolean it names a client; false (LOCAL, UNKNOWN): the client is the proxy itself
---@field path string? of the client's UNIX socket
---@field dest penstock.ProxyEnd? what the client had connected to
---@field tlv penstock.Tlv its options; may be changed, and given to a destination

---One destination, or a list of them, tried in order. A pool stands for the best three of its servers.
---@alias penstock.One penstock.Address | penstock.Target | penstock.Server | penstock.Pool
---@alias penstock.Destination penstock.One | penstock.One[]

---Seconds, or a text with a unit: "200ms", "5s", "2m", "1h".
---@alias penstock.Time number | string

---Bytes a second, or a text with a unit: "64K", "1M", "1G". 0 is no limit.
---@alias penstock.Rate number | string

---"up" is client to upstream, "down" is upstream to client.
---@alias penstock.Direction "up" | "down"

---The fixed words for what can fail.
---@alias penstock.Error
---| "timeout" | "refused" | "unreachable" | "reset" | "dns" | "tls" | "truncated" | "eof" | "too_long" | "denied" | "limit"
---| "closed" | "system"

---Why a connection ended.
---@alias penstock.Reason
---| "eof"         # both sides ended cleanly
---| "reset"       # one side aborted
---| "timeout"     # a deadline passed
---| "refused"     # the last destination tried refused the connection
---| "unreachable" # the last destination tried cannot be reached
---| "dns"         # no destination's name could be resolved
---| "denied"      # a policy said no
---| "limit"       # a limit was reached
---| "proxy"       # the PROXY header was missing, wrong, or from somebody who is not listed
---| "tls"         # TLS failed
---| "script"      # a hook failed
---| "closed"      # a policy closed it
---| "killed"      # an operator ended it, by the admin
---| "shutdown"    # the process ended first, or its server was drained
---| "system"      # a local failure

---@class penstock.Log
---@field debug fun(format: string, ...)
---@field info fun(format: string, ...)
---@field warn fun(format: string, ...)
---@field error fun(format: string, ...)

---@class penstock.Client
---@field ip string "192.0.2.1", "2001:db8::1", or "unix"
---@field port integer? absent for a UNIX socket
---@field key string what clients are counted by: the IPv4 address, or the /64 of an IPv6 address

---@class penstock.Upstream
---@field name string the destination as it was written: "db.internal:5432"
---@field addr string the address that was connected: "10.0.0.5:5432"; of the first proxy, when there are any
---@field via? penstock.Hop[] proxies on the way, without their logins
---@field tls? penstock.Tls

---@class penstock.Mode
---@field up "copy" | "splice" | "lua"
---@field down "copy" | "splice" | "lua"

---A connection. Harmless when kept after its end: methods answer nil, "closed".
---@class penstock.Conn
---@field id integer unique in the process
---@field seq integer count on its listener, over all workers, from 1
---@field listener string name of its listener
---@field client penstock.Client
---@field proxy penstock.Proxy | false | nil nil without a PROXY header; false in accept, while one is to come
---@field tls penstock.Tls? nil without TLS with the client
---@field upstream penstock.Upstream? nil until connected
---@field mode penstock.Mode how each direction is relayed now
---@field bytes_up integer bytes taken from the client
---@field bytes_down integer bytes taken from the upstream
---@field age number seconds since it was accepted
---@field ctx table free for the policy's own values
---@field log penstock.Log lines that carry the connection's id
local Conn = {}

---TLS with a side from here on; in the handshake hook, and in serve for the client. Waits for the handshake.
---@param side "client" | "upstream"
---@param options? penstock.TlsAccept | penstock.TlsDial
---@return true? ok
---@return penstock.Error? err
---@return string? phrase
function Conn:starttls(side, options) end

---Sets a tag of the access line; the same key again replaces it.
---@param key string a word of letters, digits, and _ . -
---@param value string | number | boolean | nil
---@return true? ok
---@return penstock.Error? err
function Conn:tag(key, value) end

---Ends both sides (FIN). Takes effect when the running hook ends or waits.
---@return true? ok
---@return penstock.Error? err
function Conn:close() end

---Aborts both sides (RST), as conn:close() otherwise.
---@return true? ok
---@return penstock.Error? err
function Conn:reset() end

---Limits the bytes a second of one or both directions, from now on.
---@param rates { up: (penstock.Rate | penstock.BucketKey)?, down: (penstock.Rate | penstock.BucketKey)? }
---@return true? ok
---@return penstock.Error? err
function Conn:limit(rates) end

---Looks at what the client sends; it stays for the upstream. Waits up to the handshake timeout.
---@param n integer
---@return string? bytes
---@return penstock.Error? err
function Conn:peek(n) end

---@param max? integer
---@return string? line
---@return string terminator or the error
function Conn:peek_line(max) end

---Takes what the client sends: the upstream does not get it. Waits up to the handshake timeout.
---@param n integer
---@return string? bytes
---@return penstock.Error? err
function Conn:take(n) end

---@param max? integer
---@return string? line
---@return string terminator or the error
function Conn:take_line(max) end

---@class penstock.Hello
---@field sni? string the server's name, as the client wrote it
---@field alpn string[] protocols, the preferred first
---@field versions string[] "1.3", "1.2", …
---@field ciphers integer[] cipher suites in the order in which they were sent
---@field extensions integer[] the same of extensions

---@class penstock.HelloOptions
---@field starttls "imap" | "ldap" | "mysql" | "postgres" | "smtp" | "xmpp" what is spoken before TLS
---@field name? string SMTP: the host name to greet the client with

---Looks at what a TLS client says first; it stays for the upstream. With `starttls`, speaks the server's part of what
---comes before it, and makes the same dialogue with the upstream before anything is relayed.
---@param options? penstock.HelloOptions
---@return penstock.Hello?
---@return (penstock.Error | "mismatch")? err
---@return string? detail
function Conn:hello(options) end

---Looks at the host that an HTTP/1.x request is for; the request stays for the upstream.
---@return string? host lower case, without port
---@return (penstock.Error | "mismatch")? err
function Conn:http_host() end

---Puts bytes into a direction, behind what was relayed so far.
---@param dir penstock.Direction
---@param bytes string
---@return true? ok
---@return penstock.Error? err
function Conn:inject(dir, bytes) end

---Ends the data hook or the filters of a direction; C relays the rest.
---@param dir penstock.Direction
---@return true? ok
---@return penstock.Error? err
function Conn:pass(dir) end

---Deadlines of this connection from now on; 0 takes one away.
---@param times { connect: penstock.Time?, handshake: penstock.Time?, first_byte: penstock.Time?, idle: penstock.Time?, half_closed: penstock.Time?, life: penstock.Time? }
---@return true? ok
---@return penstock.Error? err
function Conn:timeout(times) end

---@param side "client" | "upstream"
---@param on boolean
---@return true? ok
---@return penstock.Error? err
function Conn:nodelay(side, on) end

---What goes over the connection from now on, into a file that Wireshark opens; of TLS the plain text. false: no more.
---@param path string | false
---@param options? { side: "client" | "upstream" | "both" | nil, max: penstock.Size?, first: penstock.Size? }
---@return true? ok
---@return penstock.Error? err
---@return string? detail
function Conn:capture(path, options) end

---Ends it as ps.deny does, at any time.
---@param options? { reason: string?, reset: boolean? }
---@return true? ok
---@return penstock.Error? err
function Conn:deny(options) end

---Runs f once, unless the connection ends before.
---@param time penstock.Time
---@param f fun()
---@return penstock.Task? task
---@return penstock.Error? err
function Conn:after(time, f) end

---Bytes that were not made into a string; can be written.
---@class penstock.Buffer
local Buffer = {}

---@param i? integer
---@param j? integer
---@return string
function Buffer:sub(i, j) end

---@param i? integer
---@param j? integer
---@return integer ...
function Buffer:byte(i, j) end

---Plain text, no pattern.
---@param text string
---@param init? integer
---@return integer? first
---@return integer? last
function Buffer:find(text, init) end

---@return integer
function Buffer:len() end

---What filters, handshake and serve read from and write to. Every call may wait.
---@class penstock.Stream
local Stream = {}

---@param max? integer
---@return string? bytes nil at the end
---@return penstock.Error? err
function Stream:read(max) end

---@param n integer
---@return string? bytes
---@return penstock.Error? err
function Stream:exactly(n) end

---What stands before the delimiter, which is consumed.
---@param delimiter string 1 to 32 bytes
---@param max? integer 64 KiB
---@return string? text
---@return penstock.Error? err
function Stream:upto(delimiter, max) end

---@param max? integer 64 KiB, without the terminator
---@return string? line
---@return string terminator "\n", "\r\n", "" at the end; or the error
function Stream:line(max) end

---@param max? integer
---@return fun(): string?, string
function Stream:lines(max) end

---@param options { skip: integer?, len: "u8" | "u16be" | "u16le" | "u24be" | "u32be" | "u32le" | "varint", adjust: integer?, max: integer? }
---@return string? header
---@return string body or the error
function Stream:frame(options) end

---@param max? integer
---@return penstock.Buffer? buffer nil at the end
---@return penstock.Error? err
function Stream:buffer(max) end

---@param n integer
---@return string? bytes
---@return penstock.Error? err
function Stream:peek(n) end

---@param bytes string
---@return true? ok
---@return penstock.Error? err
function Stream:unread(bytes) end

---Waits above the high-water mark.
---@param ... string | number | penstock.Buffer
---@return true? ok
---@return penstock.Error? err
function Stream:write(...) end

---Moves n bytes, or all to the end.
---@param rd penstock.Stream
---@param n? integer
---@return true? ok
---@return penstock.Error? err
function Stream:pass(rd, n) end

---Waits until all has been given to the socket.
---@return true? ok
---@return penstock.Error? err
function Stream:flush() end

---Half-close, once all has gone. Does not wait.
---@return true? ok
---@return penstock.Error? err
function Stream:finish() end

---A connection of a script's own: a stream that also answers to the names of OpenResty's cosockets (times in milliseconds).
---@class penstock.Socket: penstock.Stream
local Socket = {}

---Begins TLS; the certificate is checked unless `verify` is false.
---@param session? nil
---@param name? string | penstock.TlsDial
---@param verify? boolean
---@return true? ok
---@return penstock.Error? err
---@return string? phrase
function Socket:sslhandshake(session, name, verify) end

---@param host string or "unix:/path"
---@param port? integer
---@param options? { pool: string? }
---@return 1? ok
---@return penstock.Error? err
function Socket:connect(host, port, options) end

---@param ms integer
function Socket:settimeout(ms) end

---@param connect_ms? integer
---@param send_ms? integer
---@param read_ms? integer
function Socket:settimeouts(connect_ms, send_ms, read_ms) end

---@param data string | number | table
---@return integer? bytes
---@return penstock.Error? err
function Socket:send(data) end

---@param pattern? integer | "*l" | "*a"
---@return string? bytes
---@return penstock.Error? err
---@return string? partial
function Socket:receive(pattern) end

---@param max? integer
---@return string? bytes
---@return penstock.Error? err
function Socket:receiveany(max) end

---@param delimiter string
---@param options? { inclusive: boolean? }
---@return fun(): string?, penstock.Error?, string?
function Socket:receiveuntil(delimiter, options) end

---@param ms? integer
---@param size? integer
---@return 1? ok
---@return penstock.Error? err
function Socket:setkeepalive(ms, size) end

---@return integer
function Socket:getreusedtimes() end

---What was written is delivered.
---@return 1? ok
---@return penstock.Error? err
function Socket:close() end

---@class penstock.Task
local Task = {}

---@param time? penstock.Time
---@return any ... what its function returned; nil, "timeout"; nil, "closed" when it failed or was cancelled
function Task:wait(time) end

---@return boolean there
function Task:cancel() end

---A latch.
---@class penstock.Signal
local Signal = {}

---Wakes all who wait; who comes later does not wait.
---@param value? any
function Signal:set(value) end

function Signal:clear() end

---@param time? penstock.Time
---@return any value
---@return "timeout"? err
function Signal:wait(time) end

---@class penstock.Info
---@field reason penstock.Reason
---@field side "client" | "upstream" | "-" who ended it
---@field detail string a further word, or ""
---@field bytes_up integer
---@field bytes_down integer
---@field duration number seconds since it was accepted
---@field connect_time number? seconds the connection to the upstream took; nil when there was none

---@class penstock.Deny
---@class penstock.Reply
---@class penstock.Pass
---@class penstock.Cancelled

---When it returns, C relays the rest.
---@alias penstock.Filter fun(conn: penstock.Conn, rd: penstock.Stream, wr: penstock.Stream)

---What a policy file returns. Every hook may wait.
---@class penstock.Policy
---@field accept? fun(conn: penstock.Conn): (nil | boolean | penstock.Deny)
---@field sni? fun(conn: penstock.Conn, name: string): (nil | false | penstock.Certificate)
---@field connect? fun(conn: penstock.Conn): (nil | penstock.Destination | penstock.Deny | penstock.Reply)
---@field failed? fun(conn: penstock.Conn, dest: string, err: penstock.Error, detail: string): (nil | penstock.Destination | penstock.Deny | penstock.Reply)
---@field connected? fun(conn: penstock.Conn): (nil | penstock.Deny)
---@field handshake? fun(conn: penstock.Conn, client: penstock.Stream, upstream: penstock.Stream): (nil | penstock.Deny)
---@field serve? fun(conn: penstock.Conn, client: penstock.Stream)
---@field filter? { up: penstock.Filter?, down: penstock.Filter? }
---@field data? fun(conn: penstock.Conn, dir: penstock.Direction, chunk: string): (nil | string | penstock.Pass)
---@field close? fun(conn: penstock.Conn, info: penstock.Info)

---@alias penstock.StoreValue string | number | boolean

---Values by key, shared by all workers. Keys are strings of at most 1 KiB, or numbers that count as their text.
---@class penstock.Store
local Store = {}

---@param key string | number
---@return penstock.StoreValue? value
---@return "too_long"? err
function Store:get(key) end

---@param key string | number
---@param value penstock.StoreValue? nil deletes
---@param ttl? penstock.Time for ever unless given
---@return true? ok
---@return "too_long" | "limit" | nil err
function Store:set(key, value, ttl) end

---Sets only where nothing is.
---@param key string | number
---@param value penstock.StoreValue
---@param ttl? penstock.Time
---@return true? ok
---@return "exists" | "too_long" | "limit" | nil err
function Store:add(key, value, ttl) end

---@param key string | number
---@param n? number 1 unless given
---@param init? number what is counted from when there is nothing
---@param ttl? penstock.Time then
---@return number? value the new one
---@return "not_found" | "not_a_number" | "too_long" | "limit" | nil err
function Store:incr(key, n, init, ttl) end

---Sets `new` only where `old` is; nil stands for nothing.
---@param key string | number
---@param old penstock.StoreValue?
---@param new penstock.StoreValue?
---@return true? ok
---@return "changed" | "too_long" | "limit" | nil err
function Store:cas(key, old, new) end

---@param key string | number
---@return boolean? existed
---@return "too_long"? err
function Store:del(key) end

---@param key string | number
---@return number? seconds left; math.huge for ever
---@return "not_found" | "too_long" | nil err
function Store:ttl(key) end

---@return integer items that take room
function Store:len() end

---@return integer items that had to go before their time
function Store:evicted() end

---Token buckets by key, shared by all workers.
---@class penstock.Bucket
local Bucket = {}

---The bucket of one key, for conn:limit.
---@class penstock.BucketKey

---Takes the tokens when they are there.
---@param key string | number
---@param n? number 1 unless given
---@return boolean? taken
---@return number | "too_long" | nil seconds until they would be there
function Bucket:take(key, n) end

---Waits for the tokens, behind those who wait already. Only in hooks.
---@param key string | number
---@param n? number 1 unless given
---@param max? penstock.Time
---@return true? taken
---@return "timeout" | "too_long" | "limit" | nil err
function Bucket:wait(key, n, max) end

---@param key string | number
---@return penstock.BucketKey? bucket
---@return "too_long" | "limit" | nil err
function Bucket:key(key) end

---@return integer buckets forgotten before they were full again
function Bucket:forgotten() end

---A server of a pool: a destination, and, when it is a proxy, also a hop of `via`.
---@class penstock.Server
---@field name string
---@field state "up" | "down" | "ejected" | "drained"
---@field conns integer connections that use it, of all workers
local Server = {}

---It gets no new connections; those it has go on.
function Server:drain() end

---It takes part again, whatever has been said against it: undoes drain, checks that failed, and ejection.
function Server:up() end

---Servers with a state that all workers share, and the choice among them.
---@class penstock.Pool
local Pool = {}

---The server whose turn it is.
---@param key? string what shall stay together; needed for algo = "hash"
---@return penstock.Server?
---@return "unavailable"? err
function Pool:pick(key) end

---The servers that may be used, the best first.
---@param key? string
---@return fun(): penstock.Server?
function Pool:each(key) end

---@param which string | integer name or number
---@return penstock.Server?
function Pool:server(which) end

---All servers, in the order in which they were given.
---@return penstock.Server[]
function Pool:servers() end

---@class penstock.ServerOptions: penstock.Target
---@field name? string
---@field weight? number 1 unless given

---@class penstock.Checks
---@field every? penstock.Time 5 s unless given
---@field fall? integer failures in a row after which it is down, 2 unless given
---@field rise? integer successes in a row after which it is up again, 1 unless given
---@field timeout? penstock.Time of one check
---@field send? string
---@field expect? string how the answer must begin

---@class penstock.PoolOptions
---@field name string
---@field servers (string | penstock.ServerOptions)[]
---@field algo? "round_robin" | "random" | "least_conn" | "hash"
---@field check? penstock.Checks
---@field eject? { fails: integer?, time: penstock.Time? }

---@alias penstock.Label string | number | boolean

---@class penstock.Counter
local Counter = {}

---@param n? number 1 unless given, not below 0
---@param ... penstock.Label a value for each label
function Counter:inc(n, ...) end

---@class penstock.Gauge
local Gauge = {}

---@param n? number 1 unless given
---@param ... penstock.Label
function Gauge:inc(n, ...) end

---@param value number
---@param ... penstock.Label
function Gauge:set(value, ...) end

---@class penstock.Histogram
local Histogram = {}

---@param value number
---@param ... penstock.Label
function Histogram:observe(value, ...) end

---@class penstock
---@field PASS penstock.Pass returned by data: this chunk as it is, and no more of this direction
---@field CANCELLED penstock.Cancelled what a wait raises when its connection has ended
---@field version string
---@field log penstock.Log lines of the process
local ps = {}

---The decision to turn the client away.
---@param options? { reason: string?, reset: boolean?, hang: penstock.Time?, reply: string? }
---@return penstock.Deny
function ps.deny(options) end

---Waits. Only in hooks.
---@param time penstock.Time
function ps.sleep(time) end

---A number in [0, 1); a whole number from 1 to n; a whole number from a to b. Seeded by --seed.
---@overload fun(): number
---@overload fun(n: integer): integer
---@param a integer
---@param b integer
---@return integer
function ps.random(a, b) end

---The store of that name. Without options its limits stay what they are, at first 100000 items and 256 MiB.
---@param name string
---@param options? { items: integer?, bytes: (number | string)? }
---@return penstock.Store
function ps.store(name, options) end

---The buckets of that name.
---@param name string
---@param options { rate: number | string, burst: (number | string)?, keys: integer? }
---@return penstock.Bucket
function ps.bucket(name, options) end

---@param name string
---@param labels? string[]
---@param options? { help: string? }
---@return penstock.Counter
function ps.counter(name, labels, options) end

---@param name string
---@param labels? string[]
---@param options? { help: string? }
---@return penstock.Gauge
function ps.gauge(name, labels, options) end

---@param name string
---@param labels? string[]
---@param options? { help: string?, buckets: number[]? }
---@return penstock.Histogram
function ps.histogram(name, labels, options) end

---All metrics as text, in Prometheus' format; penstock's own (docs/metrics.md) are among them.
---@return string
function ps.metrics() end

---A pool. Only while the file loads.
---@param options penstock.PoolOptions
---@return penstock.Pool
function ps.pool(options) end

---@class penstock.Limits
---@field handshakes? integer TLS handshakes at once
---@field conns? integer connections at once
---@field per_ip? integer connections at once of one client
---@field rate? integer new connections a second
---@field up? penstock.Rate bytes a second, client to upstream, of each connection
---@field down? penstock.Rate the same, upstream to client

---@class penstock.Timeouts
---@field connect? penstock.Time
---@field handshake? penstock.Time
---@field first_byte? penstock.Time
---@field idle? penstock.Time
---@field half_closed? penstock.Time
---@field life? penstock.Time

---A policy, or a list of policies that may hold lists.
---@alias penstock.Policies penstock.Policy | penstock.Policies[]

---PROXY headers of clients.
---@class penstock.AcceptProxy
---@field from string | string[] networks of proxies, which must send a header and are believed: "10.0.0.0/8", "unix"
---@field others? "accept" | "deny" clients from elsewhere: taken as they are (the default), or reset

---@class penstock.Listener
---@field bind string | string[] ":6379", "[::]:5432", ":9000-9010", "unix:/path", "fd:3", "fd:web"
---@field to? penstock.Destination | (fun(conn: penstock.Conn): penstock.Destination?) | { pick: function }
---@field name? string one word
---@field policy? penstock.Policies
---@field on_error? "close" | "pass"
---@field tls? penstock.TlsAccept
---@field limits? penstock.Limits
---@field timeouts? penstock.Timeouts
---@field accept_proxy? penstock.AcceptProxy
---@field nodelay? boolean
---@field keepalive? penstock.Time
---@field rcvbuf? integer | string
---@field sndbuf? integer | string
---@field backlog? integer
---@field bind_source? string
---@field mode? "auto" | "copy" | "splice"

---A certificate and its key, from files in PEM. Only while the file loads.
---@param options { cert: string, key: string? }
---@return penstock.Certificate
function ps.certificate(options) end

---A listener. Only while the file loads.
---@param listener penstock.Listener
function ps.listen(listener) end

---@class penstock.Options
---@field workers? integer | "auto"
---@field max_conns? integer
---@field max_versions? integer
---@field drain_timeout? penstock.Time
---@field upgrade_timeout? penstock.Time
---@field resolver? string
---@field spin? integer
---@field gather? integer
---@field pid_file? string
---@field log? "error" | "warn" | "info" | "debug"
---@field log_format? "text" | "json" | "journal"
---@field log_file? string
---@field access_log? string
---@field jit? true
---@field admin? string "unix:/run/penstock/admin.sock" or "127.0.0.1:9180"
---@field admin_token_file? string
---@field admin_no_token? true
---@field admin_lua? true
---@field sandbox? false
---@field user? string "penstock" or "penstock:ssl-cert"
---@field seed? integer

---Options of the process; those of the command line win. Only while the file loads.
---@param options penstock.Options
function ps.options(options) end

---Answers the client and ends. Returned by connect and failed.
---@param bytes string
---@return penstock.Reply
function ps.reply(bytes) end

---Runs f beside the hook, until its connection ends.
---@param f function
---@param ... any
---@return penstock.Task
function ps.spawn(f, ...) end

---What the first function to end returned; the others are cancelled.
---@param ... function
---@return any ...
function ps.race(...) end

---The first result of each function.
---@param ... function
---@return any ...
function ps.all(...) end

---What f returned, or nil, "timeout".
---@param time penstock.Time
---@param f function
---@param ... any
---@return any ...
function ps.timeout(time, f, ...) end

---@return penstock.Signal
function ps.signal() end

---Runs f once, whatever becomes of the connection it was called for.
---@param time penstock.Time
---@param f function
---@param ... any
---@return penstock.Task
function ps.after(time, f, ...) end

---Runs f again and again.
---@param time penstock.Time
---@param f fun()
---@param options? { once_per: "worker" | "host" | nil }
---@return penstock.Task
function ps.every(time, f, options) end

---Runs f once this worker serves.
---@param f fun()
---@return penstock.Task
function ps.on_start(f) end

---Runs f once this version of the script has replaced an earlier one.
---@param f fun()
---@return penstock.Task
function ps.on_reload(f) end

---Runs f when this version gets no more connections.
---@param f fun()
function ps.on_stop(f) end

ps.tcp = {}

---@return penstock.Socket
function ps.tcp.new() end

---@param destination penstock.Destination
---@param options? { timeout: penstock.Time? }
---@return penstock.Socket? socket
---@return penstock.Error? err
---@return string? detail
function ps.tcp.connect(destination, options) end

ps.dns = {}

---@param name string
---@param type? "A" | "AAAA"
---@param options? { timeout: penstock.Time? }
---@return string[]? addresses
---@return penstock.Error? err
---@return string? detail
function ps.dns.resolve(name, type, options) end

return ps
