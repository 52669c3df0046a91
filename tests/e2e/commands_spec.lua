-- The command lines in the documents run: penstock is started with each, its ports, files and proxies replaced by ones
-- of the test, and bytes have to pass both ways, or what the comments below it say (tests/e2e/support/commands.lua).
local commands = require "tests.e2e.support.commands"
local e2e = require "tests.e2e.support.case"
local proxy = require "tests.e2e.support.proxy"
local snippets = require "tests.e2e.support.snippets"
local stages = require "tests.e2e.support.stage"
local tls = require "tests.e2e.support.tls"
local case, sys = e2e.case, e2e.sys

local flags = { ["--tls"] = true, ["--watch"] = true, ["--jit"] = true, ["--nodelay"] = true, ["--no-nodelay"] = true }
local files = { ["--tls-cert"] = true, ["--tls-key"] = true, ["--tls-client-ca"] = true, ["--tls-ca"] = true,
  ["--auth"] = true, ["--access-log"] = true, ["--log-file"] = true, ["--pid-file"] = true }

local function named_block(document, name)
  for _, s in ipairs(snippets.of(document)) do
    if s.name == name then return s.text end
  end
  error(("%s shows no file %s"):format(document, name))
end

local function each_of(list, f)
  local out = {}
  for item in list:gmatch "[^,]+" do out[#out + 1] = f(item) end
  return table.concat(out, ",")
end

-- The words of an option's value, replaced.
local function value_of(stage, option, value, play)
  if option == "-p" then
    local text = named_block(play.document, value)
    return stage.t:file(value, stage:text(text))
  end
  if option == "--via" then return each_of(value, function(url) return stage:proxy(url) end) end
  if option == "--accept-proxy" then return "127.0.0.0/8" end
  if option == "--auth" then
    local path = stage.t:file(value, "alice:wonderland\n")
    os.execute("chmod 600 " .. path)
    return path
  end
  if option == "--allow" and value ~= "any" then return value .. ",127.0.0.0/8:*" end
  if files[option] and value ~= "-" and value ~= "off" then return stage:path(value) end
  return value
end

-- LISTEN TARGET, or what stands for them.
local function replace_places(stage, places, play)
  local first = places[1]
  if first == "run" then
    local text = named_block(play.document, places[2])
    if text:find("tls = {", 1, true) then play.options["--tls-cert"] = true end
    return { "run", stage.t:file(places[2], stage:text(text)) }
  end
  if first == "socks" or first == "connect" then return { first, stage:listen(places[2]) } end
  local out = {}
  for i = 1, #places, 2 do
    out[i] = stage:listen(places[i])
    out[i + 1] = each_of(places[i + 1], function(name) return stage:target(name) end)
    play.tls_upstream = play.tls_upstream or places[i + 1]:find "^tls://"
  end
  return out
end

local function replace(stage, words, play)
  local out, places, i = {}, {}, 1
  while i <= #words do
    local word = words[i]
    if word:find "^%-." and not flags[word] then
      play.options[word] = words[i + 1]
      out[#out + 1], out[#out + 2] = word, value_of(stage, word, words[i + 1], play)
      i = i + 1
    elseif flags[word] then
      play.options[word] = true
      out[#out + 1] = word
    else
      places[#places + 1] = word
    end
    i = i + 1
  end
  play.tls_upstream = play.options["--tls"]
  play.places = places
  for _, word in ipairs(replace_places(stage, places, play)) do out[#out + 1] = word end
  if play.tls_upstream and not play.options["--tls-ca"] then
    table.insert(out, 1, "--tls-ca")
    table.insert(out, 2, stage:ca().cert)
  end
  return out
end

-- ---- what passes ----

local function ask_proxy(stage, client, play)
  local target = stage:target "target.lab:80"
  local port = tonumber(target:match ":(%d+)$")
  if play.places[1] == "connect" then
    client:send(("CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n"):format(target, target))
    client:expect "HTTP/1.1 200"
    local head = ""
    repeat head = head .. client:read(1) until head:find "\r\n\r\n$"
  else
    local login = play.options["--auth"]
    client:send(login and "\5\1\2" or "\5\1\0"):expect(login and "\5\2" or "\5\0")
    if login then client:send "\1\5alice\10wonderland":expect "\1\0" end
    client:send("\5\1\0\1\127\0\0\1" .. proxy.u16(port)):expect "\5\0\0\1"
    client:read(6)
  end
end

local function new_client(stage, p, play)
  local client = stage.t:connect(p)
  if play.options["--accept-proxy"] then
    client:send(proxy.v1("TCP4", "203.0.113.7", "10.0.0.1", "50000", "443"))
  end
  if play.options["--tls-cert"] then
    local shown = tls.certificate(stage.t:folder(), "ann", { ca = stage:ca() })
    client = tls.client(client, { ca = stage:ca().cert, name = "localhost", cert = shown.cert, key = shown.key })
    client:handshake()
  end
  if play.places[1] == "socks" or play.places[1] == "connect" then ask_proxy(stage, client, play) end
  return client
end

local function new_upstream(stage, name, begins, play)
  if not play.tls_upstream and not play.options["--send-proxy"] then return stage:reached(name, begins).socket, true end
  local upstream = stage:reached(name).socket
  if play.options["--send-proxy"] == "v2" then
    local head = upstream:read(16)
    upstream:read(head:byte(15) * 256 + head:byte(16))
  elseif play.options["--send-proxy"] then
    upstream:expect "PROXY TCP4 "
    repeat until upstream:read(1) == "\n"
  end
  if play.tls_upstream then
    local shown = tls.certificate(stage.t:folder(), "localhost", { ca = stage:ca(), suffix = "_upstream" })
    upstream = tls.server(upstream, { cert = shown.cert, key = shown.key }):handshake()
  end
  return upstream
end

local function hello_for(name)
  local peer = tls.client({}, { name = name })
  peer:step()
  return peer:output()
end

local usual = {
  { who = "client", act = "sends", bytes = "ping\n" }, { who = "upstream", act = "gets", bytes = "ping\n" },
  { who = "upstream", act = "sends", bytes = "pong\n" }, { who = "client", act = "gets", bytes = "pong\n" },
}

local function side(stage, sides, step, play)
  local one = sides[step.who]
  if one then return one, false end
  local begins = step.act == "gets" and step.bytes or nil
  local already
  one, already = new_upstream(stage, step.who ~= "upstream" and step.who or nil, begins, play)
  sides[step.who] = one
  return one, already and begins ~= nil
end

local function perform(stage, p, steps, play)
  local sides, hello = { client = new_client(stage, p, play) }, nil
  for _, step in ipairs(steps) do
    if step.act == "ends" then
      p:expect_end(step.want)
    elseif step.act == "asks" then
      hello = hello_for(step.bytes)
      sides.client:send(hello)
    else
      if step.bytes == "its hello" then step = { who = step.who, act = step.act, bytes = hello } end
      local one, has_it = side(stage, sides, step, play)
      if step.act == "sends" then one:send(step.bytes) elseif not has_it then one:expect(step.bytes) end
    end
  end
end

local n = 0
for _, document in ipairs { "docs/recipes.md", "docs/migration.md", "docs/index.md" } do
  describe(document .. ":", function()
    for _, command in ipairs(commands.of(document)) do
      n = n + 1
      local text = "penstock " .. table.concat(command.words, " ")
      case(("line %d: %s"):format(command.line, text), function(t)
        local play = { document = document, options = {} }
        local stage = stages.new(t, command.down)
        local args = replace(stage, command.words, play)
        local p = t:penstock(args)
        perform(stage, p, #command.steps > 0 and command.steps or usual, play)
        local log = play.options["--access-log"]
        if log then
          for _, thing in ipairs(t.things) do thing:close() end
          p:stop()
          assert.is_truthy((sys.read_file(stage:path(log)) or ""):find '"reason":"')
        end
      end)
    end
  end)
end

describe("the documents", function()
  it("have command lines", function() assert.is_true(n >= 30, n .. " were found") end)
end)
