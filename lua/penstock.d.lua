---@meta penstock
-- Annotations for editors (LuaCATS): point lua-language-server's workspace.library at the directory of this file.
-- docs/lua-api.md is the manual.

---A destination: "host:port", "unix:/path", or a comma list of these, tried in order.
---@alias penstock.Address string

---A proxy on the way: "socks5://user:password@host:1080", "http://host:3128".
---@alias penstock.Hop string

---An address with options.
---@class penstock.Target
---@field [1] penstock.Address
---@field via? penstock.Hop | penstock.Hop[] proxies on the way, in the order in which they are reached
---@field proxy? "v1" | "v2" begin with a header of the PROXY protocol
---@field tlv? table<integer, string> options in the header of version 2, by type
---@field bind? string source address
---@field timeout? penstock.Time for this destination, within the whole

---One destination, or a list of them, tried in order.
---@alias penstock.Destination penstock.Address | penstock.Target | (penstock.Address | penstock.Target)[]

---Seconds, or a text with a unit: "200ms", "5s", "2m", "1h".
---@alias penstock.Time number | string

---Bytes a second, or a text with a unit: "64K", "1M", "1G". 0 is no limit.
---@alias penstock.Rate number | string

---"up" is client to upstream, "down" is upstream to client.
---@alias penstock.Direction "up" | "down"

---The fixed words for what can fail.
---@alias penstock.Error
---| "timeout" | "refused" | "unreachable" | "reset" | "dns" | "tls" | "eof" | "too_long" | "denied" | "limit"
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
---| "script"      # a hook failed
---| "closed"      # a policy closed it
---| "shutdown"    # the process ended first
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

---@class penstock.Mode
---@field up "copy" | "splice" | "lua"
---@field down "copy" | "splice" | "lua"

---A connection. Harmless when kept after its end: methods answer nil, "closed".
---@class penstock.Conn
---@field id integer unique in the process
---@field seq integer count on its listener, over all workers, from 1
---@field listener string name of its listener
---@field client penstock.Client
---@field upstream penstock.Upstream? nil until connected
---@field mode penstock.Mode how each direction is relayed now
---@field bytes_up integer bytes taken from the client
---@field bytes_down integer bytes taken from the upstream
---@field age number seconds since it was accepted
---@field ctx table free for the policy's own values
---@field log penstock.Log lines that carry the connection's id
local Conn = {}

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
---@param rates { up: penstock.Rate?, down: penstock.Rate? }
---@return true? ok
---@return penstock.Error? err
function Conn:limit(rates) end

---@class penstock.Info
---@field reason penstock.Reason
---@field side "client" | "upstream" | "-" who ended it
---@field detail string a further word, or ""
---@field bytes_up integer
---@field bytes_down integer
---@field duration number seconds since it was accepted
---@field connect_time number? seconds the connection to the upstream took; nil when there was none

---@class penstock.Deny
---@class penstock.Pass
---@class penstock.Cancelled

---What a policy file returns. Every hook may wait.
---@class penstock.Policy
---@field accept? fun(conn: penstock.Conn): (nil | boolean | penstock.Deny)
---@field connect? fun(conn: penstock.Conn): (nil | penstock.Destination | penstock.Deny)
---@field failed? fun(conn: penstock.Conn, dest: string, err: penstock.Error, detail: string): (nil | penstock.Destination | penstock.Deny)
---@field connected? fun(conn: penstock.Conn): (nil | penstock.Deny)
---@field data? fun(conn: penstock.Conn, dir: penstock.Direction, chunk: string): (nil | string | penstock.Pass)
---@field close? fun(conn: penstock.Conn, info: penstock.Info)

---@class penstock
---@field PASS penstock.Pass returned by data: this chunk as it is, and no more of this direction
---@field CANCELLED penstock.Cancelled what a wait raises when its connection has ended
---@field version string
---@field log penstock.Log lines of the process
local ps = {}

---The decision to turn the client away.
---@param options? { reason: string?, reset: boolean?, hang: penstock.Time? }
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

return ps
