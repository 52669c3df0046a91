-- Stores and buckets over the admin: what is in them, whatever the bytes, and how it is changed.
local e2e = require "tests.e2e.support.case"
local admin = require "tests.e2e.support.admin"
local case, sys = e2e.case, e2e.sys
local ask, encode, null = admin.ask, admin.encode, require("cjson").null

-- penstock with this text as its configuration, a listener apart. Returns it and the address of its admin.
local function start(t, text, args)
  return admin.configured(t, text .. '\nps.listen { name = "front", bind = "127.0.0.1:0", to = "127.0.0.1:1" }', args)
end

local function path_of(store, key, more)
  return ("/v1/stores/%s?key=%s%s"):format(store, encode(key), more or "")
end

local function get(t, at, store, key) return ask(t, at, path_of(store, key)) end

local function put(t, at, store, key, body, more)
  return ask(t, at, path_of(store, key, more), { method = "PUT", body = body })
end

-- All keys, page by page; how many pages.
local function keys(t, at, store, query)
  local list, pages, after = {}, 0, nil
  repeat
    local status, body = ask(t, at, ("/v1/stores/%s/keys?%s%s"):format(store, query or "",
      after and "&after=" .. after or ""))
    assert(status == 200, status)
    for _, item in ipairs(body.keys) do list[#list + 1] = item end
    pages, after = pages + 1, body.next
  until after == null
  return list, pages
end

describe("the stores that the admin shows", function()
  case("are none without a policy, nor are there buckets", function(t)
    local at = "unix:" .. t:folder() .. "/admin.sock"
    t:penstock { "--admin", at, "127.0.0.1:0", "127.0.0.1:1" }
    assert.same({}, select(2, ask(t, at, "/v1/stores")).stores)
    assert.same({}, select(2, ask(t, at, "/v1/buckets")).buckets)
    local status, body = get(t, at, "seen", "a")
    assert.same({ 404, "there is no store seen" }, { status, body.error })
  end)

  case("have what is in them and their limits", function(t)
    local _, at = start(t, [[
      local s = ps.store("seen", { items = 2, bytes = 4194304 })
      for i = 1, 3 do s:set("k" .. i, i) end
      ps.store "empty"
      ps.bucket("logins", { rate = 0.5, burst = 5, keys = 10 }):take("a")
    ]])
    local seen, empty = unpack(select(2, ask(t, at, "/v1/stores")).stores)
    assert.same({ "seen", 2, 2, 4194304, 1 }, { seen.name, seen.items, seen.max_items, seen.max_bytes, seen.evicted })
    assert.is_true(seen.bytes > 0)
    assert.same({ "empty", 0, 0, 100000 }, { empty.name, empty.items, empty.bytes, empty.max_items })
    assert.same({ { name = "logins", rate = 0.5, burst = 5, keys = 1, max_keys = 10, forgotten = 0 } },
      select(2, ask(t, at, "/v1/buckets")).buckets)
  end)

  case("give a value with its type and time", function(t)
    local _, at = start(t, [[
      local s = ps.store "seen"
      s:set("n", 0.1) s:set("huge", math.huge) s:set("yes", true) s:set("no", false) s:set("s", "text", 3600)
      s:set("bytes", "a\255") s:set("zero", "a\0b") s:set("quote", '"\\\n\27[31m') s:set("", "empty key")
    ]])
    local function value(key)
      local status, body = get(t, at, "seen", key)
      assert.equal(200, status)
      assert.equal(key, body.key)
      return { body.type, body.value, body.value_base64 }
    end
    assert.same({ "number", 0.1 }, value "n")
    assert.same({ "number", "inf" }, value "huge")
    assert.same({ "boolean", true }, value "yes")
    assert.same({ "boolean", false }, value "no")
    assert.same({ "string", "text" }, value "s")
    assert.same({ "string", null, "Yf8=" }, value "bytes")
    assert.same({ "string", null, "YQBi" }, value "zero")
    assert.same({ "string", '"\\\n\27[31m' }, value "quote")
    assert.same({ "string", "empty key" }, value "")
    local ttl = select(2, get(t, at, "seen", "s")).ttl_ms
    assert.is_true(ttl > 0 and ttl <= 3600000)
    assert.equal(null, select(2, get(t, at, "seen", "n")).ttl_ms)
    assert.equal(404, (get(t, at, "seen", "other")))
    assert.equal(404, (get(t, at, "other", "n")))
  end)

  case("have keys of any bytes", function(t)
    local _, at = start(t, [[
      ps.store("a"):set("k/\0\255?&=+ %", "v") ps.store("a"):set('/ "c"?&#\27', "w")
    ]])
    local status, body = get(t, at, "a", "k/\0\255?&=+ %")
    assert.same({ 200, null, "ay8A/z8mPSsgJQ==", "v" }, { status, body.key, body.key_base64, body.value })
    status, body = get(t, at, "a", '/ "c"?&#\27')
    assert.same({ 200, '/ "c"?&#\27', nil, "w" }, { status, body.key, body.key_base64, body.value })
    local list = keys(t, at, "a", "prefix=%2F")
    assert.same({ 1, '/ "c"?&#\27' }, { #list, list[1].key })
  end)

  case("give a value as long as a store takes", function(t)
    local _, at = start(t, 'ps.store("seen"):set("long", ("\\1"):rep(1048576))')
    local status, body = get(t, at, "seen", "long")
    assert.same({ 200, true }, { status, body.value == ("\1"):rep(1048576) })
  end)

  case("have nothing that is past its time", function(t)
    local _, at = start(t, 'local s = ps.store "seen" s:set("short", 1, 0.05) s:set("long", 1, 3600)')
    assert(sys.wait_until(function() return get(t, at, "seen", "short") == 404 end), "it stays")
    local list = keys(t, at, "seen")
    assert.same({ 1, "long" }, { #list, list[1].key })
    assert.equal(404, (ask(t, at, path_of("seen", "short"), { method = "DELETE" })))
  end)

  case("have keys, page by page, those with a prefix, each once", function(t)
    local _, at = start(t, [[
      for _, name in ipairs { "large", "small" } do
        local s = ps.store(name, name == "small" and { items = 100 } or nil)
        for i = 1, name == "small" and 50 or 3000 do s:set((i % 10 == 0 and "ten-" or "k-") .. i, i) end
      end
    ]])
    for _, c in ipairs { { "large", 3000, 300 }, { "small", 50, 5 } } do
      local list, pages = keys(t, at, c[1], "limit=100")
      local seen = {}
      for _, item in ipairs(list) do
        assert.is_nil(seen[item.key], "twice: " .. item.key)
        assert.equal("number", item.type)
        seen[item.key] = true
      end
      assert.equal(c[2], #list)
      assert.is_true(pages <= c[2] / 100 + 1)
      local tens = keys(t, at, c[1], "prefix=ten-")
      assert.equal(c[3], #tens)
      for _, item in ipairs(tens) do assert.matches("^ten%-%d+0$", item.key) end
    end
    assert.same({}, (keys(t, at, "large", "prefix=nothing")))
    assert.is_true(#select(2, ask(t, at, "/v1/stores/large/keys?limit=1")).keys >= 1)
  end)

  case("are walked to their end though keys come, and none that stays is missed", function(t)
    local p, at = start(t, [[
      local s = ps.store "large"
      for i = 1, 500 do s:set("stays-" .. i, i) end
      ps.listen { name = "more", bind = "127.0.0.1:0", policy = { accept = function(conn)
        for i = 1, 5000 do s:set("new-" .. conn.seq .. "-" .. i, i) end
        return ps.deny()
      end } }
    ]])
    local seen, after, n = {}, nil, 0
    repeat
      local body = select(2, ask(t, at, "/v1/stores/large/keys?limit=40" .. (after and "&after=" .. after or "")))
      for _, item in ipairs(body.keys) do
        if item.key:find "^stays" and not seen[item.key] then seen[item.key], n = true, n + 1 end
      end
      if after == nil or n == 200 then t:connect(p.addresses[1]):expect_eof() end
      after = body.next
    until after == null
    assert.equal(500, n)
  end)

  case("of a million keys hold up neither the admin nor who uses them", function(t)
    local p, at = start(t, [[
      local s = ps.store("million", { items = 1000000, bytes = 1073741824 })
      for i = 1, 1000000 do s:set(i, true) end
      ps.listen { name = "use", bind = "127.0.0.1:0", policy = { serve = function(_, client)
        client:write(tostring(s:get "777777"))
      end } }
    ]])
    assert.equal(1000000, select(2, ask(t, at, "/v1/stores")).stores[1].items)
    local walks = {}
    for i = 1, 4 do walks[i] = admin.start(t, at, "/v1/stores/million/keys?limit=1000&prefix=no") end
    local client = t:connect(p.addresses[1])
    assert.equal("true", client:read_all())
    for i = 1, 4 do
      local status, body = admin.finish(walks[i])
      assert.same({ 200, 0 }, { status, #body.keys })
      assert.is_string(body.next)
    end
    assert.same({ 200, true }, { 200, select(2, get(t, at, "million", "777777")).value })
  end)
end)

describe("a store that the admin changes", function()
  case("has for policies what was put, in its type and for its time", function(t)
    local p, at = start(t, [[
      local s = ps.store "seen"
      ps.listen { name = "use", bind = "127.0.0.1:0", policy = { serve = function(_, client)
        local v = s:get(client:line())
        client:write(type(v), " ", tostring(v))
      end } }
    ]])
    local function sees(key)
      local client = t:connect(p.addresses[1])
      client:send(key .. "\n")
      return client:read_all()
    end
    assert.equal(200, (put(t, at, "seen", "a", "text")))
    assert.equal("string text", sees "a")
    assert.equal(200, (put(t, at, "seen", "a", "2.5", "&type=number")))
    assert.equal("number 2.5", sees "a")
    assert.equal(200, (put(t, at, "seen", "a", "3.5\n", "&type=number")))
    assert.equal("number 3.5", sees "a")
    assert.equal(200, (put(t, at, "seen", "a", "true\r\n", "&type=boolean")))
    assert.equal("boolean true", sees "a")
    assert.equal(200, (put(t, at, "seen", "a", "false", "&type=boolean&ttl=1h")))
    assert.equal("boolean false", sees "a")
    assert.is_true(select(2, get(t, at, "seen", "a")).ttl_ms > 3000000)
    assert.equal(200, (put(t, at, "seen", "b", "")))
    assert.equal("string ", sees "b")
    local body = t:file("body", "\0\255" .. ("x"):rep(1048574))
    assert.equal(200, (put(t, at, "seen", "c", "@" .. body)))
    assert.equal(1048576 + 7, #sees "c")
    local status, answer = ask(t, at, path_of("seen", "a"), { method = "DELETE" })
    assert.same({ 200, 1 }, { status, answer.deleted })
    assert.equal("nil nil", sees "a")
    assert.equal(404, (ask(t, at, path_of("seen", "a"), { method = "DELETE" })))
  end)

  case("takes nothing that it should not", function(t)
    local _, at = start(t, 'ps.store "seen"')
    local function refused(want, pattern, ...)
      local status, body = ask(t, at, ...)
      assert.equal(want, status)
      assert.matches(pattern, body.error, 1, true)
    end
    local put_it = { method = "PUT", body = "1x" }
    refused(400, "which key? key=KEY is missing", "/v1/stores/seen", put_it)
    refused(400, "which key? key=KEY is missing", "/v1/stores/seen")
    refused(400, "which key? key=KEY is missing", "/v1/stores/seen", { method = "DELETE" })
    refused(400, "key is a key of at most 1024 bytes", path_of("seen", ("k"):rep(1025)), put_it)
    refused(400, "key is a key", "/v1/stores/seen?key=%zz", put_it)
    refused(400, "type is string, number or boolean", path_of("seen", "a", "&type=table"), put_it)
    refused(400, "ttl is a time above 0", path_of("seen", "a", "&ttl=0"), put_it)
    refused(400, "the body must be a number, since type=number", path_of("seen", "a", "&type=number"), put_it)
    refused(400, "the body must be true or false, since type=boolean", path_of("seen", "a", "&type=boolean"), put_it)
    for _, wrong in ipairs { "\n", "", "1\n2", " 1", "1 \n" } do
      refused(400, "the body must be a number", path_of("seen", "a", "&type=number"), { method = "PUT", body = wrong })
    end
    refused(404, "there is no store other", path_of("other", "a"), put_it)
    refused(405, "takes GET, PUT, DELETE", path_of("seen", "a"), { method = "POST" })
    refused(400, "after is what the page before has as next", "/v1/stores/seen/keys?after=x")
    refused(400, "after is what the page before has as next", "/v1/stores/seen/keys?after=1-2x")
    refused(400, "limit is 1 to 1000", "/v1/stores/seen/keys?limit=0")
    assert.same({}, select(2, ask(t, at, "/v1/stores/seen/keys?after=9999-ffffffffffffffff")).keys)
    local body = t:file("body", ("x"):rep(1048577))
    put_it.body = "@" .. body
    refused(413, "the body of this has at most 1048576 bytes", path_of("seen", "a"), put_it)
    assert.equal(0, select(2, ask(t, at, "/v1/stores")).stores[1].items)
  end)
end)
