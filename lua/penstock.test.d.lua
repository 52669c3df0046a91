---@meta penstock.test
-- Annotations for editors (LuaCATS) of what specs use; docs/testing-policies.md is the manual.

---@class penstock.test
local t = {}

---@class penstock.test.Limits
---@field conns? integer connections at once
---@field per_ip? integer connections at once of one client address
---@field rate? integer new connections a second
---@field up? integer | string bytes a second, client to upstream
---@field down? integer | string bytes a second, upstream to client

---@class penstock.test.Timeouts
---@field connect? penstock.Time
---@field handshake? penstock.Time
---@field first_byte? penstock.Time
---@field idle? penstock.Time
---@field half_closed? penstock.Time
---@field life? penstock.Time

---@class penstock.test.Options
---@field to? string the listener's target; default: the first upstream
---@field seed? integer of ps.random()
---@field time? integer seconds since 1970 at the beginning of the test
---@field name? string conn.listener
---@field unsafe? boolean all Lua libraries
---@field limits? penstock.test.Limits
---@field timeouts? penstock.test.Timeouts

---Loads a policy, or a configuration with its listeners, for this test.
---@param path string as for the command line, or relative to the spec
---@param options? penstock.test.Options
---@return penstock.test.Policy
function t.load(path, options) end

---Lets time pass, from one timer to the next.
---@param seconds penstock.Time
function t.advance(seconds) end

---Calls fn with every split of the input in two, then with its single bytes.
---@param input string
---@param fn fun(parts: string[])
function t.splits(input, fn) end

---What has happened in this test so far, with the virtual time.
---@return string[]
function t.trace() end

---A policy behind one listener, with a network of its own.
---@class penstock.test.Policy
---@field path string
local Policy = {}

---Opens a virtual server: "10.0.0.5:80", "db.internal:5432", "unix:/run/db.sock".
---@param address string
---@param options? { window?: integer }
---@return penstock.test.Upstream
function Policy:upstream(address, options) end

---Connects a client.
---@param options? { ip?: string, port?: integer, to?: string, window?: integer } to: a listener's name or address
---@return penstock.test.Client
function Policy:client(options) end

---Says what names resolve to.
---@param names table<string, string[] | string | "nxdomain" | "servfail" | "timeout">
---@return penstock.test.Policy
function Policy:dns(names) end

---Makes connections to an address fail.
---@param address string
---@param word "refused" | "timeout" | "unreachable" | "reset"
---@param times? integer default: all of them, from now on
---@return penstock.test.Policy
function Policy:fail(address, word, times) end

---The lines that were logged: "info: text".
---@return string[]
function Policy:log() end

---A hook is going to raise an error that matches the Lua pattern.
---@param pattern string
---@return penstock.test.Policy
function Policy:expect_error(pattern) end

---One end of a connection.
---@class penstock.test.Peer
local Peer = {}

---@param bytes string | number
---@return self
function Peer:send(bytes) end

---Ends this side after what was sent (FIN).
---@return self
function Peer:finish() end

---Aborts (RST).
---@return self
function Peer:reset() end

---@return self
function Peer:stop_reading() end

---@return self
function Peer:start_reading() end

---All that was received.
---@return string
function Peer:received() end

---What was received since the last read.
---@return string
function Peer:read() end

---How the other side has ended.
---@return "fin" | "rst" | nil
function Peer:ended() end

---Bytes that are still to be taken.
---@return integer
function Peer:unsent() end

---@class penstock.test.Access
---@field reason penstock.Reason
---@field detail? string
---@field side "client" | "upstream" | "-"
---@field upstream string
---@field bytes_up integer
---@field bytes_down integer
---@field tags table<string, string>

---@class penstock.test.Client: penstock.test.Peer
---@field conn? integer the connection's id, once it was accepted
local Client = {}

---Reason and detail of the access line; nil while the connection lives.
---@return penstock.Reason? reason
---@return string? detail
function Client:closed() end

---All of the access line; nil while the connection lives.
---@return penstock.test.Access?
function Client:access() end

---A virtual server; what it does, its latest connection does.
---@class penstock.test.Upstream: penstock.test.Peer
---@field address string
---@field connections penstock.test.Peer[]
local Upstream = {}

---Its next connection that was not given out yet.
---@return penstock.test.Peer?
function Upstream:accept() end

return t
