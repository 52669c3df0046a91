-- The words of clients and servers before TLS, written down from the protocols' specifications, not from penstock.
-- Each dialogue is a list of steps { from, bytes }; the client's ends with its ClientHello, which is not listed.
local dialogues = {}

-- A ClientHello for this name, in records of at most `most` bytes.
function dialogues.hello(name, most)
  local entry = "\0\0" .. string.char(#name) .. name
  local extensions = "\10\10\0\0\0\0\0" .. string.char(#entry + 2) .. "\0" .. string.char(#entry) .. entry ..
    "\0\16\0\8\0\6\2\90\90\2h2"
  local body = "\3\3" .. ("r"):rep(32) .. "\0" .. "\0\4\42\42\19\1" .. "\1\0" ..
    "\0" .. string.char(#extensions) .. extensions
  local message = "\1\0\0" .. string.char(#body) .. body
  local records = {}
  for at = 1, #message, most or 16384 do
    local part = message:sub(at, at + (most or 16384) - 1)
    records[#records + 1] = "\22\3\1\0" .. string.char(#part) .. part
  end
  return table.concat(records)
end

local START_TLS = "0\29\2\1\1w\24\128\0221.3.6.1.4.1.1466.20037"
local TLS = "urn:ietf:params:xml:ns:xmpp-tls"
local header = "<?xml version='1.0'?>\n<stream:stream to='im.example' xmlns='jabber:client' " ..
  "xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
local greeting = ("\10" .. "8.0.36\0" .. "\1\0\0\0" .. "saltsalt" .. "\0" .. "\255\255" .. "\33" .. "\2\0" ..
  "\255\223" .. "\21" .. ("\0"):rep(10) .. "moresaltmore\0" .. "caching_sha2_password\0")

-- client: what a client says and, as patterns, what it is answered; upstream: what the upstream is asked and what it
-- answers to that.
dialogues.postgres = {
  client = { { say = "\0\0\0\8\4\210\22\47", hear = "^S$" } },
  upstream = { { hear = "\0\0\0\8\4\210\22\47", say = "S" } },
}
dialogues.smtp = {
  greeted = "^220 %S+ ESMTP\r\n$",
  client = {
    { say = "EHLO client.example\r\n", hear = "^250%-%S+\r\n250 STARTTLS\r\n$" },
    { say = "STARTTLS\r\n", hear = "^220 [^\n]*\r\n$" },
  },
  upstream = {
    { hear = "", say = "220-mx.example ESMTP\r\n220 at your service\r\n" },
    { hear = "EHLO client.example\r\n", say = "250-mx.example\r\n250-SIZE 1000\r\n250-StartTLS\r\n250 HELP\r\n" },
    { hear = "STARTTLS\r\n", say = "220 Go ahead\r\n" },
  },
}
dialogues.imap = {
  greeted = "^%* OK %[CAPABILITY [^%]]*STARTTLS[^%]]*%] [^\r\n]*\r\n$",
  client = {
    { say = "a1 CAPABILITY\r\n", hear = "^%* CAPABILITY [^\r\n]*STARTTLS[^\r\n]*\r\na1 OK [^\r\n]*\r\n$" },
    { say = "a2 STARTTLS\r\n", hear = "^a2 OK [^\r\n]*\r\n$" },
  },
  upstream = {
    { hear = "", say = "* OK IMAP4rev1 Service Ready\r\n" },
    { hear = "p1 STARTTLS\r\n", say = "* CAPABILITY IMAP4rev1\r\np1 OK go\r\n" },
  },
}
dialogues.xmpp = {
  client = {
    { say = header, hear = "^<%?xml version='1.0'%?><stream:stream from='im.example' id='%x+' version='1.0' " ..
      "xmlns='jabber:client'.*<starttls xmlns='" .. TLS:gsub("%p", "%%%0") .. "'>.*</stream:features>$" },
    { say = "<starttls xmlns='" .. TLS .. "'/>", hear = "^<proceed xmlns='" .. TLS:gsub("%p", "%%%0") .. "'/>$" },
  },
  upstream = {
    { hear = header, say = "<?xml version='1.0'?><stream:stream id='a>b' xmlns='jabber:client' version='1.0'>\n" ..
      "<stream:features><starttls xmlns=\"" .. TLS .. "\"/><mechanisms><mechanism>PLAIN</mechanism></mechanisms>" ..
      "</stream:features>" },
    { hear = "<starttls xmlns='" .. TLS .. "'/>", say = "<proceed xmlns='" .. TLS .. "'/>" },
  },
}
dialogues.ldap = {
  client = { { say = START_TLS, hear = "^0.\2\1\1x.\10\1%z\4%z\4%z" } },
  upstream = { { hear = START_TLS, say = "0\132\0\0\0\12\2\1\1x\7\10\1\0\4\0\4\0" } },
}

dialogues.START_TLS, dialogues.TLS, dialogues.xmpp_header = START_TLS, TLS, header

-- MySQL's packets: the server's greeting, and the client's request for TLS.
dialogues.mysql = {
  greeting = string.char(#greeting) .. "\0\0\0" .. greeting,
  plain_greeting = string.char(#greeting) .. "\0\0\0" .. greeting:gsub("\255\255\33", "\255\247\33"),
  request = "\32\0\0\1" .. "\5\174\255\25" .. "\0\0\0\1" .. "\33" .. ("\0"):rep(23),
}

return dialogues
