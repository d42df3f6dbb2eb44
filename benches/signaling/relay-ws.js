/** The plain room relay that the seeds' readers write: `ws`, a map of rooms, everything to the others. */
import { WebSocketServer } from "ws";

const rooms = new Map();
const server = new WebSocketServer({ port: 0, host: "127.0.0.1", perMessageDeflate: false, clientTracking: false });
server.on("connection", (socket, request) => {
  const name = request.url;
  const room = rooms.get(name) ?? new Set();
  rooms.set(name, room.add(socket));
  socket.on("message", (data) => {
    const text = data.toString();
    JSON.parse(text);
    for (const other of room) if (other !== socket) other.send(text);
  });
  socket.on("close", () => room.delete(socket) && room.size === 0 && rooms.delete(name));
});
server.on("listening", () => console.log(`listening ${server.address().port}`));
