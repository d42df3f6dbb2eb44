/** The same relay on Socket.IO's own server. */
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const io = new Server(http, { perMessageDeflate: false });
io.on("connection", (socket) => {
  socket.on("webrtc:join_room", ({ roomId }) => {
    socket.join(roomId);
    socket.emit("webrtc:joined_room", { roomId });
  });
  for (const name of ["webrtc:offer", "webrtc:answer", "webrtc:ice_candidate"]) {
    socket.on(name, (payload) => socket.to(payload.roomId).emit(name, { ...payload, from: socket.id }));
  }
});
http.listen(0, "127.0.0.1", () => console.log(`listening ${http.address().port}`));
