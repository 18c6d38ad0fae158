// Stands in for the SQL drivers that Azurite's in-memory store never opens.
module.exports = {};
