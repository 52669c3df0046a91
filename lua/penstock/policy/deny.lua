-- Turns away the clients that are listed.
return require "penstock.address_list"("deny", "allow", "denied_address")
