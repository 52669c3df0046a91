-- A stage for what documents show: their addresses, files and proxies, replaced by ones of this test.
--
--   local stage = stages.new(t, down)
--   stage:target "tls://db.internal:5432"    what to write instead; somebody listens there, unless it is in `down`
--   stage:text(lua)                          the same for a whole configuration or policy
--   stage:reached "db.internal:5432"         the next connection there; of any address without one
local e2e = require "tests.e2e.support.case"
local tls = require "tests.e2e.support.tls"
local sys = e2e.sys

local Stage = {}
Stage.__index = Stage
local stages = {}

-- A host of this test alone, for ranges of ports that have to stay as they are.
local function own_host(t, n) return ("127.%d.%d.%d"):format(1 + t.ports % 250, 1 + n, 1 + t.ports % 251) end

function stages.new(t, down)
  t.ports = t:refusing().port
  return setmetatable({ t = t, down = down or {}, listeners = {}, hosts = 0, unread = {} }, Stage)
end

function Stage:ca()
  if not self.authority then self.authority = tls.ca(self.t:folder(), "authority") end
  return self.authority
end

-- The path of a file that the document names; certificates are made, all by one authority.
function Stage:path(name)
  local base = name:match "[^/]+$"
  local path = self.t:folder() .. "/" .. base
  if sys.read_file(path) then return path end
  if base:find "%.pem$" then
    local made = tls.certificate(self.t:folder(), "localhost", { ca = self:ca(), suffix = "_made" })
    local text = sys.read_file(made.cert)
    if base:find "ca" or base:find "staff" then text = sys.read_file(self:ca().cert) end
    if base:find "key" then text = sys.read_file(self.key or made.key) end
    if base:find "cert" then self.key = self.key or path .. ".own" sys.write_file(self.key, sys.read_file(made.key)) end
    sys.write_file(path, text)
    os.execute("chmod 600 " .. path)
  end
  return path
end

function Stage:range(name, first, last)
  self.hosts = self.hosts + 1
  local host = own_host(self.t, self.hosts)
  for port = first, last do
    self.listeners[name:gsub("%d+%-%d+$", port)] = self.t:listen(("%s:%d"):format(host, port))
  end
  return ("%s:%d-%d"):format(host, first, last)
end

function Stage:address(name)
  local listener = self.listeners[name]
  if not listener then
    if self.down[name] then
      listener = self.t:refusing()
    elseif name:find "^unix:" then
      listener = self.t:listen("unix:" .. self:path(name))
    else
      listener = self.t:listen()
    end
    self.listeners[name] = listener
  end
  return listener.address
end

function Stage:target(name)
  local scheme, rest = name:match "^(tls://)(.*)$"
  name = rest or name
  local first, last = name:match ":(%d+)%-(%d+)$"
  if name == "-" then return name end
  if first then return self:range(name, tonumber(first), tonumber(last)) end
  if name:find "^%d+$" then name = "127.0.0.1:" .. name end
  return (scheme or "") .. self:address(name)
end

function Stage:listen(name)
  if name:find "^unix:" then return "unix:" .. self:path(name) end
  local first, last = name:match ":(%d+)%-(%d+)$"
  if not first then return "127.0.0.1:0" end
  self.hosts = self.hosts + 1
  return ("%s:%s-%s"):format(own_host(self.t, self.hosts), first, last)
end

-- A proxy of our own in the place of one that the document names.
function Stage:proxy(url)
  local scheme, login = url:match "^(%a+%d?)://(.*)$"
  login = login:match "^(.*)@"
  local args = { scheme == "http" and "connect" or "socks", "--allow", "127.0.0.0/8:*" }
  if login then
    local users = self.t:file("users-" .. scheme, login .. "\n")
    os.execute("chmod 600 " .. users)
    table.insert(args, "--auth")
    table.insert(args, users)
  end
  table.insert(args, "127.0.0.1:0")
  return ("%s://%s%s"):format(scheme, login and login .. "@" or "", self.t:penstock(args).address)
end

function Stage:text(text)
  text = text:gsub("/etc/penstock/[%w_.-]+", function(name) return self:path(name) end)
  text = text:gsub("[%w_.-]+%.pcapng", function(name) return self.t:folder() .. "/" .. name end)
  text = text:gsub('bind = "([^"]*)"', function(name) return ("bind = '%s'"):format(self:listen(name)) end)
  text = text:gsub('"(%a+%d?://[^"/]*)"', function(url) return ('"%s"'):format(self:proxy(url)) end)
  return (text:gsub('"([%w.-]+:%d[%d-]*)"', function(name) return ('"%s"'):format(self:target(name)) end)
    :gsub('"(unix:/[^"]*)"', function(name) return ('"%s"'):format(self:target(name)) end))
end

local function accept_all(self)
  for name, listener in pairs(self.listeners) do
    local socket = not self.down[name] and listener:try_accept(0)
    if socket then
      table.insert(self.t.things, socket)
      table.insert(self.unread, { name = name, socket = socket })
    end
  end
end

-- `begins` is what it has to have sent, so that checks of pools are not taken for it.
function Stage:reached(name, begins)
  local found = sys.wait_until(function()
    accept_all(self)
    for i, one in ipairs(self.unread) do
      local fits = not name or one.name == name
      if fits and begins and one.socket:ready("r", 0) then
        local got = one.socket:receive(#begins)
        if got then one.got = (one.got or "") .. got end
      end
      if fits and (not begins or one.got == begins) then return table.remove(self.unread, i) end
    end
  end)
  return found or error(("nobody came to %s"):format(name or "any upstream"), 2)
end

return stages
