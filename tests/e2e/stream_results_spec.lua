-- What the reads of a stream return can be given to wr:write() as it is.
local e2e = require "tests.e2e.support.case"
local case = e2e.case

local function echo_through(t, body)
  local server = t:listen()
  local policy = "return { filter = { up = function(_, rd, wr) " .. body .. " end } }"
  local p = t:penstock { "-p", t:file("policy.lua", policy), "127.0.0.1:0", server.address }
  local client, upstream = t:connect(p), t:accept(server)
  client:send "four six words"
  client:finish()
  upstream:expect "four six words"
  upstream:expect_eof()
  upstream:finish()
  client:expect_eof()
end

describe("wr:write() takes what was read by", function()
  for name, body in pairs {
    read = "wr:write(rd:read()) wr:pass(rd)",
    buffer = "wr:write(rd:buffer()) wr:pass(rd)",
    exactly = "wr:write(rd:exactly(5)) wr:pass(rd)",
    peek = "rd:peek(5) wr:write(rd:peek(5)) rd:exactly(5) wr:pass(rd)",
    upto = "wr:write(rd:upto(' ', 10)) wr:write(' ') wr:pass(rd)",
    line = "wr:write(rd:line())",
  } do
    case(name, function(t) echo_through(t, body) end)
  end
end)
