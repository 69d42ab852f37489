package dataset

import "encoding/binary"

// exifOrientation returns tag 0x0112 of the first directory of an EXIF block (a TIFF file in small, TIFF 6.0 §2), 1..8; 1 if the block
// has none or is damaged.
func exifOrientation(b []byte) int {
	const normal = 1
	if len(b) < 8 {
		return normal
	}
	var order binary.ByteOrder
	switch string(b[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return normal
	}
	at := int64(order.Uint32(b[4:]))
	if at+2 > int64(len(b)) {
		return normal
	}
	entries := b[at+2:]
	for range order.Uint16(b[at:]) {
		if len(entries) < 12 {
			return normal
		}
		const tag, short = 0x0112, 3
		if order.Uint16(entries) == tag && order.Uint16(entries[2:]) == short {
			if v := int(order.Uint16(entries[8:])); v >= 1 && v <= 8 {
				return v
			}
			return normal
		}
		entries = entries[12:]
	}
	return normal
}

// An orientation is a mirror of the columns, then of the rows, then an exchange of the two: stored pixel (x,y) of a W×H picture is
// shown at (x',y') with x' = W-1-x if mirrorX, y' = H-1-y if mirrorY, exchanged if transpose. EXIF 2.3, 4.6.4 A, table of Orientation.
type orientationParts struct{ mirrorX, mirrorY, transpose bool }

var orientations = [9]orientationParts{
	1: {},
	2: {mirrorX: true},
	3: {mirrorX: true, mirrorY: true},
	4: {mirrorY: true},
	5: {transpose: true},
	6: {mirrorY: true, transpose: true}, // stored rows run from the right side down: turn clockwise
	7: {mirrorX: true, mirrorY: true, transpose: true},
	8: {mirrorX: true, transpose: true},
}
