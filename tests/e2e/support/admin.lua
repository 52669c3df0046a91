-- The admin of a running penstock, asked by curl.
local cjson = require "cjson"

local admin = {}

local function url_of(address, path)
  local socket = address:match "^unix:(.+)$"
  if socket then return { "--unix-socket", socket, "http://localhost" .. path } end
  return { "http://" .. address .. path }
end

-- Starts curl for one request. `options`: method, body, headers (a list), http.
function admin.start(t, address, path, options)
  options = options or {}
  local argv = { "curl", "-sS", "--max-time", "60", "--globoff", "-w", "\n%{http_code}", "-X", options.method or "GET" }
  for _, header in ipairs(options.headers or {}) do
    argv[#argv + 1] = "-H"
    argv[#argv + 1] = header
  end
  if options.body then
    argv[#argv + 1] = "--data-binary"
    argv[#argv + 1] = options.body
  end
  for _, word in ipairs(url_of(address, path)) do argv[#argv + 1] = word end
  return t:spawn(argv)
end

-- Waits for it. Returns the status and the body, as a table where it is JSON.
function admin.finish(curl)
  assert(curl:wait(60), "curl does not end")
  local body, status = curl.out:match "^(.*)\n(%d+)$"
  assert(status, "no answer: " .. curl.err)
  if body:find "^{" then body = cjson.decode(body) end
  return tonumber(status), body
end

function admin.ask(t, address, path, options)
  return admin.finish(admin.start(t, address, path, options))
end

-- As one piece of a path, or one argument.
function admin.encode(text)
  return (text:gsub("[^%w_.~-]", function(c) return ("%%%02X"):format(c:byte()) end))
end

-- ---- penstock with an admin ----

-- On a UNIX socket. Returns it and the address of the admin.
function admin.penstock(t, args)
  local at = "unix:" .. t:folder() .. "/admin.sock"
  local words = { "--admin", at }
  for _, word in ipairs(args) do words[#words + 1] = word end
  return t:penstock(words), at
end

-- With this Lua text as its configuration.
function admin.configured(t, text, args)
  local words = {}
  for _, word in ipairs(args or {}) do words[#words + 1] = word end
  words[#words + 1] = "run"
  words[#words + 1] = t:file("penstock.lua", 'local ps = require "penstock"\n' .. text)
  return admin.penstock(t, words)
end

-- A function that runs `penstock ctl` on it: status, error text, output.
function admin.ctl(t, at)
  return function(...) return t:run({ "ctl", ... }, { env = { PENSTOCK_ADMIN = at } }) end
end

-- Every line fits into a terminal of 80 columns.
function admin.expect_narrow(text)
  for line in text:gmatch "[^\n]+" do
    local _, columns = line:gsub("[^\128-\191]", "")
    if columns > 80 then error(columns .. " columns: " .. line, 2) end
  end
end

-- The connections that fit.
function admin.conns(t, address, query)
  local status, body = admin.ask(t, address, "/v1/connections" .. (query or ""))
  assert(status == 200, status)
  return body.connections, body.next
end

return admin
