---@meta
-- Annotations for editors (LuaCATS) of the ready policies; docs/policies.md is the manual. Each module is a function of
-- its options:  ---@type penstock.policy.rate
--               local rate = require "penstock.policy.rate"

---A network: "10.0.0.0/8", "10/8", "192.0.2.1", "2001:db8::/32", "unix".
---@alias penstock.Network string

---@alias penstock.policy.allow fun(options: penstock.policy.AllowOptions): penstock.Policy
---@class penstock.policy.AllowOptions
---@field [integer] penstock.Network who is let in
---@field deny? penstock.Network | penstock.Network[] exceptions; the longest prefix decides
---@field reason? string
---@field reset? boolean
---@field hang? penstock.Time

---@alias penstock.policy.deny fun(options: penstock.policy.DenyOptions): penstock.Policy
---@class penstock.policy.DenyOptions
---@field [integer] penstock.Network who is turned away
---@field allow? penstock.Network | penstock.Network[] exceptions; the longest prefix decides
---@field reason? string
---@field reset? boolean
---@field hang? penstock.Time

---@alias penstock.policy.rate fun(options: penstock.policy.RateOptions): penstock.Policy
---@class penstock.policy.RateOptions
---@field name? string
---@field connections? number new ones a second
---@field burst? integer
---@field concurrent? integer open ones
---@field up? penstock.Rate
---@field down? penstock.Rate
---@field by? "key" | "ip" | "listener" | fun(conn: penstock.Conn): (string | number | nil)
---@field over? "deny" | "reset" | "hang"
---@field hang? penstock.Time
---@field clients? integer how many are remembered

---@alias penstock.policy.log fun(options?: penstock.policy.LogOptions): penstock.Policy
---@alias penstock.policy.LogValue fun(conn: penstock.Conn, info: penstock.Info): any
---@class penstock.policy.LogOptions
---@field format? "text" | "json" | string | fun(conn: penstock.Conn, info: penstock.Info): string
---@field fields? string[]
---@field values? table<string, penstock.policy.LogValue>
---@field tags? string[] fields for penstock's own access line
---@field sample? number 0 to 1
---@field failures? boolean log them whatever sample says
---@field level? "debug" | "info" | "warn" | "error"

---@alias penstock.policy.router fun(options: penstock.policy.RouterOptions): penstock.Policy
---@alias penstock.policy.Choose fun(conn: penstock.Conn, name: string?): (penstock.Destination | penstock.Deny | penstock.Reply)
---@class penstock.policy.RouterOptions
---@field names table<string, penstock.Destination | penstock.policy.Choose> "www.lab", "*.web.lab"
---@field default? penstock.Destination | penstock.policy.Choose
---@field unknown? "deny" | "reset" | penstock.Deny | penstock.Reply | penstock.policy.Choose
---@field tls? boolean look for SNI
---@field starttls? "imap" | "ldap" | "postgres" | "smtp" | "xmpp" look for SNI after that
---@field http? boolean look for Host
---@field tag? string

---@alias penstock.policy.headers fun(options: penstock.policy.HeadersOptions): penstock.Policy
---@alias penstock.policy.Field string | fun(conn: penstock.Conn): string?
---@class penstock.policy.HeaderChanges
---@field set? table<string, penstock.policy.Field>
---@field add? table<string, penstock.policy.Field>
---@field remove? string | string[]
---@class penstock.policy.HeadersOptions: penstock.policy.HeaderChanges
---@field set? table<string, penstock.policy.Field>
---@field add? table<string, penstock.policy.Field>
---@field remove? string | string[]
---@field forwarded? boolean | "append" | "replace" X-Forwarded-For
---@field response? penstock.policy.HeaderChanges
---@field every? boolean all messages of a connection
---@field invalid? "reset" | "pass"
---@field max? integer

---@alias penstock.policy.lines fun(options: penstock.policy.LinesOptions): penstock.Policy
---@alias penstock.policy.LineRule string[] { "what", "instead" }
---@alias penstock.policy.Rewrite penstock.policy.LineRule[] | fun(line: string, conn: penstock.Conn): (string | false | nil)
---@class penstock.policy.LinesOptions
---@field up? penstock.policy.Rewrite
---@field down? penstock.policy.Rewrite
---@field max? number | string
---@field first? integer
---@field plain? boolean

---@alias penstock.policy.mirror fun(options: penstock.policy.MirrorOptions): penstock.Policy
---@class penstock.policy.MirrorOptions
---@field up? penstock.Destination gets what clients send
---@field down? penstock.Destination gets what the server sends
---@field queue? number | string
---@field timeout? penstock.Time
---@field sample? number

---@alias penstock.policy.tarpit fun(options?: penstock.policy.TarpitOptions): penstock.Policy
---@class penstock.policy.TarpitOptions
---@field name? string
---@field clients? penstock.Network | penstock.Network[] | fun(conn: penstock.Conn): boolean?
---@field send? string
---@field bytes? integer
---@field every? penstock.Time
---@field hold? penstock.Time
---@field most? integer
---@field over? "deny" | "reset"

---@alias penstock.policy.quota fun(options: penstock.policy.QuotaOptions): penstock.Policy
---@class penstock.policy.QuotaOptions
---@field name? string
---@field connection? number | string
---@field client? number | string
---@field window? penstock.Time
---@field count? "both" | "up" | "down"
---@field over? "close" | "reset" | "throttle"
---@field rate? penstock.Rate
---@field by? fun(conn: penstock.Conn): (string | number | nil)
---@field clients? integer

---Where clients may be led: "www.example.com:443", "*.example.com:443", "10.0.0.0/8:22", "[2001:db8::/32]:8000-8010",
---"*:443"; a port, a range of ports, or "*".
---@alias penstock.policy.Reachable string

---@alias penstock.policy.socks fun(options: penstock.policy.SocksOptions): penstock.Policy
---@class penstock.policy.SocksOptions
---@field allow "any" | penstock.policy.Reachable | penstock.policy.Reachable[]
---@field users? table<string, string> | string passwords by user, or a file with lines user:password

---@alias penstock.policy.connect fun(options: penstock.policy.ConnectOptions): penstock.Policy
---@class penstock.policy.ConnectOptions
---@field allow "any" | penstock.policy.Reachable | penstock.policy.Reachable[]
---@field users? table<string, string> | string passwords by user, or a file with lines user:password

---@alias penstock.policy.redis fun(options: penstock.policy.RedisOptions): penstock.Policy
---@class penstock.policy.RedisOptions
---@field allow? string | string[] "GET", "CONFIG GET"
---@field deny? string | string[]
---@field rename? table<string, string> what clients say -> what the server gets
---@field read_only? boolean
---@field message? string
---@field over? "error" | "reset"
