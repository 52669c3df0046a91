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

-- The connections that fit.
function admin.conns(t, address, query)
  local status, body = admin.ask(t, address, "/v1/connections" .. (query or ""))
  assert(status == 200, status)
  return body.connections, body.next
end

return admin
